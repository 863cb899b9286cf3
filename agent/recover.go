package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce/failpoint"
	"github.com/quiesced/quiesced/quiesce/guard"
)

// retryEvery is how often what could not be thawed or recorded is tried again.
const retryEvery = 5 * time.Second

// errCutOff is the cause of a run that its daemon's end cut off.
var errCutOff = errors.New("the daemon ended")

// Recover goes on with the runs that an earlier daemon left without a report.
// left is what came of their freezes, from Freezer.Recover, which needs no
// journal and so comes before it. CPI processes that still run are waited for in
// the background, as a run that holds the VM. It must be called before any
// request is accepted. unread is why records of freezes could not be used: what
// they are of may still be frozen.
func (a *Agent) Recover(left []guard.Recovered, unread error) error {
	a.noteStuck(left)
	a.noteUnread(unread)
	records, err := a.load()
	if err != nil {
		return a.journalFailed(err)
	}
	a.recoverScratch()
	held := a.heldBefore(records)
	if held == nil { // for a plan, which holds nothing yet, jobs are asked by scripts, too
		a.endLeft(func(text string) { a.Log.Warn(text) })
	}
	records = a.recoverHeld(records, held, left)
	for _, r := range records {
		if r.Report == nil {
			a.takeUp(r, nil, left)
		}
	}
	return nil
}

// load reads the catalogue and the records.
func (a *Agent) load() ([]Record, error) {
	snapshots, err := a.Journal.Snapshots()
	if err != nil {
		return nil, err
	}
	a.catalogue = newCatalogue(snapshots)
	records, err := a.Journal.All()
	a.know(Change{Records: records})
	a.mu.Lock()
	a.noteVerified(snapshots)
	a.mu.Unlock()
	return records, err
}

// recoverHeld goes first on with the run that holds jobs, and returns the records of
// the others. Where its record is lost another takes its place. A run that has its
// report already left jobs that it could not set going.
func (a *Agent) recoverHeld(records []Record, held *Held, left []guard.Recovered) []Record {
	if held == nil {
		return records
	}
	r := Record{Request: Request{ID: held.Run, Trigger: held.Trigger, Level: held.Level}, Started: time.Now()}
	if held.Trigger == TriggerDirector { // the holder will tell what became of it
		r.Request.Lease = maxLease
	}
	r.Plan.Asked, r.Plan.Level = held.Level, held.Level
	if held.Disk != nil {
		r.Restore, r.Request.Snapshot = held.Disk, held.Disk.Snapshot
	}
	at := slices.IndexFunc(records, func(r Record) bool { return r.Request.ID == held.Run })
	if at >= 0 {
		r = records[at]
		records = slices.Delete(records, at, at+1)
	}
	if r.Report != nil {
		a.endLeft(func(text string) { a.Log.Warn(text, "run", held.Run) })
		a.leaveHeld(*held)
		a.again <- struct{}{}
		return records
	}
	a.takeUp(r, held, left)
	return records
}

// takeUp goes on with a run that was cut off. Its resume has happened already:
// what is left is to set jobs going that it held, to learn what the CPI did, and to
// report. A run that held jobs has the VM before anybody else can ask for it.
func (a *Agent) takeUp(r Record, held *Held, left []guard.Recovered) {
	run := newRun(a.lifetime, r.Request)
	run.started = r.Started
	p := &performer{agent: a, run: run, record: r, held: held, going: make(chan struct{}), recovered: true, phases: map[Phase]time.Duration{}}
	p.moved, p.notes = r.Moved, r.Notes
	if r.Undone != "" {
		p.undone = errors.New(r.Undone)
	}
	p.adopt(left)
	a.keep(run)
	run.setPhase(PhaseWaiting)
	a.Log.Warn("taking up a run that was cut off", "run", run.ID(), "phase", r.Phase)
	has := held != nil && a.acquire("run "+run.ID(), run) == nil
	a.jobs.Go(func() {
		if !has && a.await(a.lifetime, "run "+run.ID(), run) != nil {
			return
		}
		resumed := p.recoverJobs(p.stuck(left))
		run.setResumed(resumed)
		cut := fmt.Errorf("the daemon ended while the run was in phase %q or later", r.Phase)
		if p.record.Restore != nil {
			report := p.finishRestore(cut, resumed)
			a.release()
			p.publish(report)
			return
		}
		run.setPhase(PhaseSnapshot)
		failpoint.Hit("taken-up")
		if !p.collect() {
			a.release()
			return
		}
		report := p.finish(cut, resumed)
		a.release()
		p.publish(report)
	})
}

// recoverJobs ends what scripts a dead daemon left at work, and sets the jobs going
// that it held. stuck is why something is still frozen, nil if nothing is.
func (p *performer) recoverJobs(stuck error) error {
	if p.held == nil {
		return stuck
	}
	p.agent.endLeft(p.note)
	p.checkAtRest(p.agent.lifetime)
	return errors.Join(stuck, p.setGoing(stuck == nil))
}

// endLeft ends what scripts a dead daemon left at work, before any of ours is begun.
func (a *Agent) endLeft(note func(string)) {
	ctx, cancel := context.WithTimeout(context.Background(), endPatience)
	defer cancel()
	ended, err := a.Scripts.EndLeft(ctx)
	for _, s := range ended {
		note(fmt.Sprintf("the %s was still at work, and was ended", s))
	}
	if err != nil {
		note(fmt.Sprintf("scripts that were still at work: %v", err))
	}
}

// endPatience is how long scripts that a dead daemon left may take to end.
const endPatience = 10 * time.Second

// adopt takes over the CPI processes of a record and how its freeze ended.
func (p *performer) adopt(left []guard.Recovered) {
	p.fixed = make(chan *call, len(p.record.Calls))
	p.ended = make(chan *call, len(p.record.Calls))
	p.synced = true // calls are recorded after the writing out
	client := p.agent.CPI
	if client == nil {
		client = &cpi.Client{}
	}
	for _, rec := range p.record.Calls {
		c := &call{disk: rec.DiskCID, sent: p.record.Started}
		p.calls = append(p.calls, c)
		if p.run.hold != nil {
			p.adoptHolder(c)
			continue
		}
		reattached, err := client.Reattach(rec.Dir, ofBoot(p.record.Boot, rec.Process))
		if c.err = err; err == nil {
			c.process = reattached
			p.await(c)
		}
	}
	if p.record.Freeze != nil && p.record.Freeze.Phases != nil {
		p.phases = p.record.Freeze.Phases
	}
	for _, l := range left {
		if l.RunID == p.run.ID() {
			p.freezeEnded(l.Result, errCutOff)
		}
	}
}

// adoptHolder takes over what the holder had told of a disk's snapshot.
func (p *performer) adoptHolder(c *call) {
	for _, s := range p.agent.catalogue.ofRun(p.run.ID()) {
		if s.DiskCID == c.disk && s.State == SnapshotKnown {
			c.cid = s.CID
			p.run.hold.adopt(HoldEnd{Snapshots: map[string]string{c.disk: s.CID}})
			return
		}
	}
	if f := p.record.Freeze; f != nil && f.Broken == "" {
		p.run.hold.adopt(HoldEnd{})
	}
	c.err = fmt.Errorf("the holder did not tell what became of it: %w", errCutOff)
}

// stuck is the error of a run of whose filesystems some are still frozen.
func (p *performer) stuck(left []guard.Recovered) error {
	for _, r := range left {
		if r.RunID == p.run.ID() && r.Err != nil {
			return fmt.Errorf("cannot thaw: %w", r.Err)
		}
	}
	return nil
}

// noteStuck remembers what is still frozen, in place of what was known of the
// runs that were tried again.
func (a *Agent) noteStuck(left []guard.Recovered, again ...string) {
	a.mu.Lock()
	a.stuck = slices.DeleteFunc(a.stuck, func(r guard.Recovered) bool { return slices.Contains(again, r.RunID) })
	for _, r := range left {
		if r.Err != nil {
			a.stuck = append(a.stuck, r)
		}
	}
	a.mu.Unlock()
	for _, r := range left {
		if r.Err != nil {
			a.Log.Error("cannot thaw what a dead guard left frozen", "run", r.RunID, "error", r.Err, "stack", stackOf(r.Err))
			continue
		}
		a.Log.Warn("found the record of a freeze", "run", r.RunID, "now", r.Recovery, "cause", r.Result.Cause)
	}
}

// stackOf is where in the kernel what is stuck is held up, "" where that is not
// known.
func stackOf(err error) string {
	var stuck *guard.StuckError
	if errors.As(err, &stuck) {
		return stuck.Stack
	}
	return ""
}

// addStuck remembers what could not be thawed, for Run to try again.
func (a *Agent) addStuck(r guard.Recovered) {
	a.Log.Error("cannot thaw in time", "run", r.RunID, "error", r.Err, "stack", stackOf(r.Err))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stuck = append(a.stuck, r)
}

// retryOn tries again, until ctx ends, what could not be thawed or recorded.
func (a *Agent) retryOn(ctx context.Context) {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.retryStuck(ctx)
			a.retryUnread(ctx)
			a.retryUnsaved()
		}
	}
}

// retryStuck needs not hold the VM, and must not: the run that holds it may wait
// for a CPI that waits for the thaw. It recovers the freezes alone that were
// given up before, none of which a run of this daemon still holds.
func (a *Agent) retryStuck(ctx context.Context) {
	ids := a.stuckRuns()
	if len(ids) == 0 {
		return
	}
	left, err := a.Freezer.Recover(ctx, guard.RecoverOptions{Force: true, Runs: ids})
	if err != nil {
		a.Log.Error("cannot recover every freeze on record", "error", err)
		return // and nothing is forgotten
	}
	a.noteStuck(left, ids...)
}

// retryUnread looks again at records that could not be used, and leaves those of
// living daemons, as of this one, alone.
func (a *Agent) retryUnread(ctx context.Context) {
	a.mu.Lock()
	known := a.unread
	a.mu.Unlock()
	if known == nil {
		return
	}
	left, err := a.Freezer.Recover(ctx, guard.RecoverOptions{})
	for _, r := range left {
		if r.Err != nil && !slices.Contains(a.stuckRuns(), r.RunID) {
			a.addStuck(r)
		}
	}
	a.noteUnread(err)
}

func (a *Agent) noteUnread(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil && a.unread == nil {
		a.Log.Error("cannot recover every freeze on record: quiesced thaw says what to do", "error", err)
	}
	a.unread = err
}

// stuckRuns are the ids of the runs of whose filesystems some are still frozen.
func (a *Agent) stuckRuns() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var ids []string
	for _, r := range a.stuck {
		ids = append(ids, r.RunID)
	}
	return ids
}

// refuseStuck refuses a request that would touch filesystems while something is
// still frozen from before: nobody knows what else waits for that, and a run
// would be one more. Level none touches nothing.
func (a *Agent) refuseStuck(r Request) error {
	if err := a.refuseCopying(r); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.stuck) == 0 && a.unread == nil || r.Level == LevelNone {
		return nil
	}
	errs := []error{a.unread}
	for _, s := range a.stuck {
		errs = append(errs, s.Err)
	}
	return refuse("", "something is still frozen from before: %w", errors.Join(errs...))
}
