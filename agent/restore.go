package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/quiesced/quiesced/quiesce/failpoint"
)

// RestoreRequest asks for a snapshot to become the persistent disk.
type RestoreRequest struct {
	ID    string // of the run to be; the same id never restores twice
	CID   string // of the snapshot
	Force bool   // though it is known, or found, to be damaged
	By    string // who asks, for the record
}

// run is the request of the run that a restore is.
func (r RestoreRequest) run(disk string) Request {
	return Request{
		ID: r.ID, Trigger: TriggerManual, Level: LevelStop, Disks: []string{disk},
		By: r.By, Snapshot: r.CID, Force: r.Force,
	}
}

// Restore begins a restore, or joins the one with the request's id, or finds its report.
// A restore is a run: it holds the VM, is followed and cancelled by its id, and a daemon
// that comes later goes on with it. Errors: those of Take, *UnknownSnapshotError.
func (a *Agent) Restore(ctx context.Context, asked RestoreRequest) (*Run, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	run, free, err := a.admitRestore(asked)
	if err != nil || free == nil {
		return run, err
	}
	defer a.jobs.Done()
	p, err := a.beginRestore(run, asked)
	if err != nil {
		a.release()
		free()
		a.conclude(run, Report{
			Outcome: OutcomeRefused, Asked: LevelStop, Reached: LevelNone, Error: err.Error(),
			Restore: &Restored{Snapshot: asked.CID, Disk: run.request.Disks[0], Side: SideBefore},
		})
		return nil, err
	}
	a.jobs.Go(func() {
		report := p.restore()
		a.release()
		free()
		p.publish(report)
	})
	return run, nil
}

// admitRestore takes the VM and the snapshot for a new restore, or finds the one that
// there is: then there is nothing to be freed in the end.
func (a *Agent) admitRestore(asked RestoreRequest) (run *Run, free func(), err error) {
	if asked.ID == "" {
		asked.ID = NewID()
	}
	if !idPattern.MatchString(asked.ID) {
		return nil, nil, refuse("id", "%q is not usable: up to 64 letters, digits, '-' and '_'", asked.ID)
	}
	a.admit.Lock()
	defer a.admit.Unlock()
	if a.lifetime.Err() != nil {
		return nil, nil, &RefusedError{Err: ErrStopping}
	}
	snapshot, err := a.catalogue.withCID(asked.CID)
	if err != nil {
		return nil, nil, err
	}
	request := asked.run(snapshot.DiskCID)
	if run, err := a.known(request); run != nil || err != nil {
		return run, nil, err
	}
	run = newRun(a.lifetime, request)
	work := "restore " + asked.CID
	if free, err = a.share(asked.CID, work); err != nil {
		return nil, nil, err
	}
	if err := a.acquire(work, run); err != nil {
		free()
		return nil, nil, err
	}
	a.jobs.Add(1)
	a.keep(run)
	return run, free, nil
}

// beginRestore plans the restore and makes its record durable, before anything is done.
func (a *Agent) beginRestore(run *Run, asked RestoreRequest) (*performer, error) {
	if err := a.refuseStuck(run.request); err != nil {
		return nil, err
	}
	if err := a.refuseHeld(true); err != nil {
		return nil, err
	}
	plan, err := a.PlanRestore(run.ctx, asked)
	if err != nil {
		return nil, err
	}
	if plan.CannotMake != nil {
		return nil, &RefusedError{Err: plan.CannotMake}
	}
	held := &Held{Run: run.ID(), Trigger: TriggerManual, Level: LevelStop}
	held.Disk = &HeldDisk{Snapshot: asked.CID, Disk: plan.Disk.CID}
	p := &performer{
		agent: a, run: run, inventory: plan.inventory, held: held, restoring: plan, going: make(chan struct{}),
		record: Record{
			Request: run.request, Plan: plan.Plan, Held: held, Restore: held.Disk, Boot: bootID(), Started: run.started, Phase: PhaseMakeDisk,
		},
	}
	failpoint.Hit("unrecorded")
	if err := p.hold(*held); err != nil {
		_ = a.storeHeld(Held{})
		return nil, refuse("", "cannot record the restore before it begins: %w", err)
	}
	failpoint.Hit("recorded")
	return p, nil
}

// Restored is what a restore has done to the persistent disk.
type Restored struct {
	Snapshot string
	Disk     string
	Side     DiskSide // "" where no disk could be put in its place
	Other    string   // CID of the other disk: the one before, or the new one that a director is to attach; "" for none
	Steps    []string // how the director attaches it, nil where that is not needed
}

// exchanged says that a report is of a restore that left another disk in place.
func (r *Report) exchanged() bool {
	return r != nil && r.Restore != nil && r.Restore.Side == SideRestored
}

// finishRestore decides what a restore came to and makes it durable.
func (p *performer) finishRestore(err, resumed error) Report {
	p.run.setPhase(PhaseRecord)
	report := p.restoreReport(err, resumed)
	p.record.Report = &report
	p.record.Held = p.agent.leftOf(p.run.ID())
	p.record.Phase = ""
	failpoint.Hit("unreported")
	if p.agent.saveRestore(p.record) && resumed == nil {
		failpoint.Hit("reported")
		p.discard()
	}
	return report
}

// saveRestore makes the record of a restore that has its report durable, and has the
// catalogue say what was restored. It returns false where that has to be done later.
func (a *Agent) saveRestore(r Record) bool {
	a.edit.Lock()
	defer a.edit.Unlock()
	return a.writeRestore(r)
}

// writeRestore is saveRestore with edit held.
func (a *Agent) writeRestore(r Record) bool {
	c, done := Change{Records: []Record{r}}, r.Report.Restore
	if s, err := a.catalogue.withCID(done.Snapshot); err == nil && done.Side == SideRestored {
		kept := "is kept as " + done.Other
		if done.Other == "" {
			kept = "is not there any more"
		}
		s.Note = strings.TrimPrefix(fmt.Sprintf("%s; restored on %s, the disk before %s",
			s.Note, time.Now().UTC().Format(time.RFC3339), kept), "; ")
		c.Snapshots = []Snapshot{s}
	}
	err := a.write(c)
	if err != nil {
		a.keepUnsaved(c)
		a.Log.Error("cannot record the restore; trying again", "run", r.Request.ID, "error", err)
	}
	return err == nil
}

// diskSettled is the record of a restore with, in its report, what became of its disk after
// the run's end.
func (r Record) diskSettled() Record {
	report, done := *r.Report, *r.Report.Restore // of which others may have the ones before
	done.Side, done.Other = r.Restore.Side, r.Restore.New
	report.Restore, r.Report = &done, &report
	return r
}

func (p *performer) restoreReport(err, resumed error) Report {
	report := p.report(err, resumed)
	d := p.record.Restore
	report.Reached, report.Reason = LevelNone, ""
	report.Restore = &Restored{Snapshot: d.Snapshot, Disk: d.Disk, Side: d.Side, Other: d.New}
	if d.Side == SideApart {
		report.Restore.Steps = attachSteps(p.agent.Settings.Instance, d.New)
	}
	done := d.Side == SideRestored || d.Side == SideApart
	switch {
	case resumed != nil:
	case done && err != nil: // it was gone on with all the same
		report.Notes = append(report.Notes, err.Error())
		report.Outcome, report.Error = p.outcome(nil, nil)
	case !done && report.Outcome == OutcomeSucceeded:
		report.Outcome, report.Error = OutcomeFailed, errNotExchanged.Error()
	}
	return report
}

// attachSteps are the commands by which a director takes another disk for an instance's.
// It records a new disk's size and properties as those of the one before only if told
// to, and else makes another disk at the next deploy.
func attachSteps(i Instance, disk string) []string {
	name := i.Job + "/" + i.ID
	return []string{
		fmt.Sprintf("bosh -d %s stop --no-converge %s", i.Deployment, name),
		fmt.Sprintf("bosh -d %s attach-disk --disk-properties=copy %s %s", i.Deployment, name, disk),
		fmt.Sprintf("bosh -d %s start --no-converge %s", i.Deployment, name),
		"bosh disks --orphaned",
	}
}
