package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/quiesced/quiesced/quiesce/failpoint"
)

// maxLease bounds a lease. A holder renews it for as long as it takes.
const maxLease = time.Hour

// checkHold checks what is a hold's alone in a request, and what a hold has not.
func checkHold(r Request) error {
	switch {
	case r.Lease == 0 && r.Trigger == TriggerDirector:
		return refuse("trigger", `"director" is a hold, whose snapshot the director takes itself`)
	case r.Lease == 0:
		return nil
	case r.Lease < 0 || r.Lease > maxLease:
		return refuse("lease_seconds", "%v is not between 0 and %v", r.Lease.Seconds(), maxLease.Seconds())
	case r.Trigger != TriggerDirector:
		return refuse("trigger", "a hold's is %q", TriggerDirector)
	}
	return nil
}

// AtRest is closed when the instance is at rest for a hold, nil of other runs.
func (r *Run) AtRest() <-chan struct{} {
	if r.hold == nil {
		return nil
	}
	return r.hold.atRest
}

// Lease is the lease of a hold that is at rest, and whether it is.
func (r *Run) Lease() (Lease, bool) {
	if r.hold == nil {
		return Lease{}, false
	}
	r.hold.mu.Lock()
	defer r.hold.mu.Unlock()
	return r.hold.lease, isClosed(r.hold.atRest) && !isClosed(r.hold.told)
}

// Renew has a hold's lease end so much from now. Errors: ErrUnknownTask,
// *RefusedError where the hold is not at rest any more, or not yet.
func (a *Agent) Renew(id string, lease time.Duration) (Lease, error) {
	run, err := a.findHold(id)
	if err != nil {
		return Lease{}, err
	}
	if lease <= 0 || lease > maxLease {
		return Lease{}, refuse("lease_seconds", "%v is not between 0 and %v", lease.Seconds(), maxLease.Seconds())
	}
	if _, ended := run.Report(); ended {
		return Lease{}, refuse("", "the hold is over")
	}
	return run.hold.renew(lease)
}

func (a *Agent) findHold(id string) (*Run, error) {
	run, err := a.Find(id)
	if err == nil && run.hold == nil {
		return nil, refuse("id", "%q is no hold", id)
	}
	return run, err
}

// ResumeHold takes the holder's word and returns when nothing is frozen any more
// and, where the word is the outcome, when that is recorded. It can be repeated, and
// what comes too late is recorded all the same. Errors: ErrUnknownTask,
// *RefusedError, *BusyError when ctx ended first.
func (a *Agent) ResumeHold(ctx context.Context, id string, end HoldEnd) (Report, error) {
	run, err := a.findHold(id)
	if err != nil {
		return Report{}, err
	}
	if err := checkEnd(run.request, end); err != nil {
		return Report{}, err
	}
	if report, ended := run.Report(); ended {
		return a.amend(run, report, end)
	}
	if !isClosed(run.hold.atRest) {
		run.Cancel() // what was to be held is not wanted any more
	}
	run.hold.tell(end)
	said := run.hold.released
	if end.outcome() {
		said = run.hold.accounted
		a.recordOutcome(run)
	}
	select {
	case <-said:
	case <-run.Done():
	case <-ctx.Done():
		phase, since := run.Progress()
		return Report{}, &BusyError{Work: "run " + id + ", which has not taken note of it yet", Phase: phase, Since: since}
	}
	if report, ended := run.Report(); ended {
		return a.amend(run, report, end)
	}
	report, _ := run.hold.lastReport()
	return report, nil
}

// recordOutcome makes durable, and answers, an outcome that is told after the point in
// time of a hold that was kept, while the run may be at work setting jobs going. Any
// other the run records in the end.
func (a *Agent) recordOutcome(run *Run) {
	a.edit.Lock()
	defer a.edit.Unlock()
	end := run.hold.outcome() // not what a second caller says
	report, released := run.hold.lastReport()
	if !released || isClosed(run.hold.accounted) || run.hold.cutOffErr() != nil || end.Err != "" || a.refuseRepeated(run.ID(), end) != nil {
		return
	}
	record, ok, err := a.recordOf(run.ID())
	if err != nil || !ok || record.Report != nil {
		return
	}
	if report.Unbroken == nil || !*report.Unbroken || report.Reason != "" {
		return
	}
	report.Disks = slices.Clone(report.Disks)
	var taken []Snapshot
	for i := range report.Disks {
		d := &report.Disks[i]
		if d.SnapshotCID = end.Snapshots[d.CID]; d.SnapshotCID == "" {
			return
		}
		d.Clean = true
		taken = append(taken, record.snapshot(*d, report))
	}
	report.Clean, report.Outcome, report.Ended = true, OutcomeSucceeded, time.Now()
	if err := a.write(Change{Snapshots: taken}); err != nil {
		return
	}
	run.hold.tellReport(report, true)
}

// checkEnd wants the snapshots to be of the hold's disks.
func checkEnd(r Request, end HoldEnd) error {
	for disk, cid := range end.Snapshots {
		if len(r.Disks) > 0 && !slices.Contains(r.Disks, disk) {
			return refuse("snapshots", "disk %q is none of the hold's", disk)
		}
		if cid == "" {
			return refuse("snapshots", "the CID of disk %q's snapshot is empty", disk)
		}
	}
	return nil
}

// amend records what a holder told after its hold had ended without it: the
// snapshot is there, and clean if its point in time was told before.
func (a *Agent) amend(run *Run, report Report, end HoldEnd) (Report, error) {
	if !report.lacks(end) {
		return report, nil
	}
	a.edit.Lock()
	defer a.edit.Unlock()
	record, ok, err := a.recordOf(run.ID())
	if err != nil {
		return report, err
	}
	if !ok || record.Report == nil {
		return report, ErrUnknownTask
	}
	if err := a.refuseRepeated(run.ID(), end); err != nil {
		return report, err
	}
	if err := a.write(record.settle(end)); err != nil {
		return report, fmt.Errorf("cannot record the snapshot of run %s: %w", run.ID(), err)
	}
	a.Log.Warn("the holder told what became of its snapshot after the hold had ended", "run", run.ID())
	run.amend(*record.Report)
	return *record.Report, nil
}

// refuseRepeated refuses a CID that another run's snapshot has.
func (a *Agent) refuseRepeated(id string, end HoldEnd) error {
	for disk, cid := range end.Snapshots {
		if other := a.catalogue.owner(cid, id); other != "" {
			return refuse("snapshots", "the CID %q of disk %q's snapshot belongs to %s", cid, disk, other)
		}
	}
	return nil
}

// lacks says that the report does not know yet what a holder tells.
func (r *Report) lacks(end HoldEnd) bool {
	known := map[string]bool{}
	for _, d := range r.Disks {
		known[d.CID] = true
		if _, told := end.Snapshots[d.CID]; d.Unresolved && (told || end.Err != "") {
			return true
		}
	}
	for disk := range end.Snapshots {
		if !known[disk] { // the hold's record was lost
			return true
		}
	}
	return false
}

// settle puts what a holder tells late into the record of its hold. Of its snapshots that
// touches those alone of which nobody knew.
func (r *Record) settle(end HoldEnd) Change {
	var c Change
	report := *r.Report
	report.Disks = slices.Clone(report.Disks)
	kept := report.Unbroken != nil && *report.Unbroken && report.Reason == ""
	for disk := range end.Snapshots {
		if !slices.ContainsFunc(report.Disks, func(d DiskResult) bool { return d.CID == disk }) {
			report.Disks = append(report.Disks, DiskResult{CID: disk, Unresolved: true})
		}
	}
	for i := range report.Disks {
		d := &report.Disks[i]
		if !d.Unresolved {
			continue
		}
		cid, told := end.Snapshots[d.CID]
		switch {
		case told:
			d.SnapshotCID, d.Clean, d.Unresolved, d.Error = cid, kept, false, ""
			c.Snapshots = append(c.Snapshots, r.snapshot(*d, report))
		case end.Err != "":
			c.Gone = append(c.Gone, r.snapshot(*d, report).Key())
			d.Unresolved, d.Error = false, (&HolderError{end.Err}).Error()
		}
	}
	report.Clean = !slices.ContainsFunc(report.Disks, func(d DiskResult) bool { return !d.Clean })
	r.Report = &report
	c.Records = []Record{*r}
	return c
}

// answerHolder gives the holder a report as soon as nothing is frozen any more, and
// makes durable before that what the holder has told.
func (p *performer) answerHolder(err, stuck error) {
	h := p.run.hold
	if h == nil {
		return
	}
	if p.run.ctx.Err() != nil {
		h.cutOff(context.Cause(p.run.ctx))
	}
	told := isClosed(h.told)
	if told {
		p.takeAnswers()
	}
	r := p.report(err, stuck)
	r.Yielded = false // which jobs come last
	if !told {
		r.Outcome = "" // it is not over
	}
	if told {
		p.remember()
		if saveErr := p.save(p.snapshots(r)...); saveErr != nil {
			p.agent.Log.Error("cannot record the snapshot yet", "run", p.run.ID(), "error", saveErr)
			told = false // the report that is recorded in the end tells of it
		}
	}
	if p.lingers() { // the next call may come as soon as this one has its answer
		p.lingering = &lingering{level: p.held.Level, asked: p.asked, next: make(chan *Run, 1), enough: make(chan struct{})}
		p.agent.setLingering(p.lingering)
	}
	failpoint.Hit("holder-unanswered")
	defer failpoint.Hit("holder-answered")
	h.tellReport(r, told && h.cutOffErr() == nil)
}

// takeAnswers reads what the holder has told.
func (p *performer) takeAnswers() {
	p.waiting = 0
	for _, c := range p.calls {
		c.over, c.answered = true, time.Now()
		c.read()
	}
	p.rejectRepeated()
}

// unbroken says whether the instance was at rest until the holder said that the point
// in time is fixed.
func (p *performer) unbroken() bool {
	return p.told() && p.run.hold.inTime() && p.broken() == "" && p.moved == ""
}
