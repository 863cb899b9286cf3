package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce/failpoint"
	"github.com/quiesced/quiesced/quiesce/guard"
)

// heartbeat is how often the run loop tells the guard that it is alive. The
// guard thaws when it has missed ten of them.
const heartbeat = 100 * time.Millisecond

// killGrace is how long a CPI that overran its budget may take to end.
const killGrace = 5 * time.Second

// performer carries out one plan. It belongs to one goroutine.
type performer struct {
	agent       *Agent
	run         *Run
	record      Record
	inventory   *Inventory    // of the jobs, before
	held        *Held         // of the jobs, nil for nothing
	going       chan struct{} // closed when resuming begins
	moved       string        // why the jobs were not at rest until the point in time, "" if they were
	downSince   time.Time     // when the services were told to stop
	lockedSince time.Time
	tried       bool  // the services had all their time to stop
	undone      error // what failed in setting jobs going that go again
	calls       []*call
	waiting     int          // how many of those have not ended
	fixed       chan *call   // whose point in time is fixed
	ended       chan *call   // whose process has ended
	guard       *guard.Guard // nil when there is no filesystem to write out or to freeze
	phases      map[Phase]time.Duration
	synced      bool            // everything was written out before the point in time
	lastRound   time.Duration   // of writing out
	notes       []string        // for the report
	recovered   bool            // another daemon began the run
	asked       map[string]bool // CIDs of the disks that the director had snapshotted while the jobs are at rest
	inherited   bool            // an earlier hold has brought the jobs to rest
	lingering   *lingering      // nil unless the director's next call is waited for
	next        *performer      // goes on from this hold's rest, nil for none
	cancelled   error           // somebody cancelled the run when only its answers were missing
	restoring   *RestorePlan    // of a restore; nil for others, and where another daemon began it
	mover       *mover          // of a restore, until the disks are exchanged
}

// call is one disk's CPI process and what became of it.
type call struct {
	disk     string
	process  taking    // nil before prepare, and where nobody takes it any more
	sent     time.Time // zero: the CPI was never told to go on
	answered time.Time // zero: no answer yet
	over     bool      // its process is known to have ended
	overran  bool      // it was ended for taking too long
	inWindow bool      // its point in time was fixed while everything was still frozen
	cid      string
	err      error
}

// perform carries the plan out, resumes whatever happened, and reports. There is
// no report when the daemon stops before the CPI has answered.
func (p *performer) perform() (report Report, ended bool) {
	p.phases = map[Phase]time.Duration{}
	err := p.rest(p.run.ctx)
	stuck := p.endFreeze()
	p.answerHolder(err, stuck)
	p.linger()
	resumed := errors.Join(stuck, p.setGoing(stuck == nil))
	p.run.setResumed(resumed)
	p.noteProgress()
	if !p.collect() {
		return Report{}, false
	}
	return p.finish(cmp.Or(err, p.cancelled), resumed), true
}

// noteProgress makes durable how the freeze ended, where the CPI is still at work:
// the daemon may not live to report it.
func (p *performer) noteProgress() {
	if p.waiting == 0 {
		return
	}
	p.record.Phase = PhaseSnapshot
	p.remember()
	if err := p.save(); err != nil {
		p.agent.Log.Error("cannot record how far the run is", "run", p.run.ID(), "error", err)
	}
	p.enter(PhaseSnapshot) // once it is durable
}

// rest is everything up to the CPI's answers: preparing, writing out, freezing
// and the frozen window.
func (p *performer) rest(ctx context.Context) error {
	for _, step := range []struct {
		phase Phase
		do    func(context.Context) error
	}{
		{PhasePrepare, p.prepare},
		{PhasePrepare, p.restJobs},
		{PhasePrepare, p.startGuard},
		{PhasePreSync, p.preSync},
		{PhaseFreeze, p.pointInTime},
	} {
		p.enter(step.phase)
		if err := step.do(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

func (p *performer) enter(phase Phase) {
	p.record.Phase = phase
	p.run.setPhase(phase)
}

// timed adds the time since from to a phase.
func (p *performer) timed(phase Phase, from time.Time) { p.phases[phase] += time.Since(from) }

// prepare starts one CPI process per disk. Each gets its request
// but for the last byte, so that loading its interpreter costs no frozen time.
func (p *performer) prepare(ctx context.Context) error {
	defer p.timed(PhasePrepare, time.Now())
	if p.run.hold != nil {
		for _, d := range p.record.Plan.Disks {
			p.calls = append(p.calls, &call{disk: d.CID, process: heldCall{p.run.hold, d.CID}})
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.agent.Settings.Budgets.PreSync)
	defer cancel()
	if _, err := p.agent.CPI.Info(ctx); err != nil {
		return fmt.Errorf("cannot ask the CPI what it is: %w", err)
	}
	var started []*cpi.Call
	for i, d := range p.record.Plan.Disks {
		process, err := p.agent.CPI.PrepareSnapshot(p.dir(i), d.CID, p.agent.Settings.metadata(p.run.request))
		if err != nil {
			return fmt.Errorf("cannot start the CPI for disk %q: %w", d.CID, err)
		}
		p.calls = append(p.calls, &call{disk: d.CID, process: process})
		started = append(started, process)
		p.watch(d.CID, process)
	}
	defer failpoint.Hit("armed")
	return arm(ctx, started)
}

// watch has the call's output watched for the point in time. Without it the
// process's end has to do.
func (p *performer) watch(disk string, process *cpi.Call) {
	pattern, err := releasePattern(p.agent.Settings.ReleaseOnStderr, disk)
	if err == nil {
		err = process.WatchPointInTime(pattern)
	}
	if err != nil {
		p.agent.Log.Warn("the freeze will last until the CPI ends", "run", p.run.ID(), "disk", disk, "error", err)
	}
}

// releasePattern is the pattern for one disk, nil for none.
func releasePattern(pattern, disk string) (*regexp.Regexp, error) {
	if pattern == "" {
		return nil, nil
	}
	return regexp.Compile(strings.ReplaceAll(pattern, "{disk_cid}", regexp.QuoteMeta(disk)))
}

// arm waits until every CPI process has read what it was given. One that takes
// longer than the budget is gone on with: it costs time, not correctness.
func arm(ctx context.Context, started []*cpi.Call) error {
	for _, process := range started {
		if err := process.Arm(ctx); err != nil && !errors.Is(err, cpi.ErrNotArmed) {
			return fmt.Errorf("cannot start the CPI: %w", err)
		}
	}
	return nil
}

// startGuard starts the guard, once the jobs are at rest: it keeps each filesystem
// busy, and a job's script may unmount one. So they are looked for again, too.
func (p *performer) startGuard(ctx context.Context) error {
	if p.held != nil {
		again, err := p.agent.survey(p.run.request, p.record.Plan.Disks, p.inventory)
		if err != nil {
			return err
		}
		p.record.Plan = *again
	}
	if len(p.record.Plan.Filesystems) == 0 {
		return nil
	}
	defer p.timed(PhasePrepare, time.Now())
	ctx, cancel := context.WithTimeout(ctx, p.agent.Settings.Budgets.PreSync)
	defer cancel()
	g, err := p.agent.Freezer.Start(ctx, p.run.ID(), p.record.Plan.Filesystems, p.agent.Settings.Budgets.window())
	if err != nil {
		return err
	}
	p.guard = g
	failpoint.Hit("guard-started")
	return nil
}

// note tells the log and the report of something beside the outcome.
func (p *performer) note(text string) {
	p.agent.Log.Warn(text, "run", p.run.ID())
	p.notes = append(p.notes, text)
}

// dir holds what the CPI prints for one disk.
func (p *performer) dir(disk int) string {
	return filepath.Join(p.runDir(), strconv.Itoa(disk))
}

func (p *performer) runDir() string { return p.agent.runDir(p.run.ID()) }

// firstCause prefers why a context ended to the bare fact that it did.
func firstCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, ctx.Err()) {
		return cause
	}
	return err
}

// pointInTime makes the intents durable, freezes if the plan does, and tells
// every CPI process to go on. From the first freeze until resume this program
// writes nothing to any disk.
func (p *performer) pointInTime(ctx context.Context) error {
	for i, c := range p.calls {
		p.record.Calls = append(p.record.Calls, Call{
			DiskCID: c.disk, Dir: p.dir(i), Process: c.process.Process(),
		})
	}
	failpoint.Hit("calls-unrecorded")
	if err := p.save(); err != nil {
		return fmt.Errorf("cannot record what is about to be done: %w", err)
	}
	failpoint.Hit("calls-recorded")
	if !p.record.Plan.Freezes() {
		p.run.setPhase(PhaseSnapshot)
		p.send(time.Time{})
		return p.holdJobs(ctx)
	}
	// What was dirtied meanwhile would be written out by FIFREEZE, while the
	// application waits.
	if err := p.preSync(ctx); err != nil {
		return err
	}
	return p.window(ctx)
}

// guardLate is how long after its deadline a guard that says nothing is waited
// for: it was stopped, or hangs.
const guardLate = time.Second

// window freezes, has every CPI process go on, and is then the run loop: it
// beats for the guard until the point in time of every snapshot is fixed, the
// deadline or a cancellation. The guard keeps the deadline; should it not, resume
// takes over from it.
func (p *performer) window(ctx context.Context) error {
	p.agent.hold(true)
	failpoint.Hit("before-freeze")
	began := time.Now()
	err := p.guard.Freeze(ctx)
	p.timed(PhaseFreeze, began)
	if err != nil {
		return firstCause(ctx, err)
	}
	p.run.setPhase(PhaseFrozen)
	failpoint.Hit("frozen")
	p.send(began.Add(p.agent.Settings.Budgets.window()))
	failpoint.Hit("told")
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	late := time.NewTimer(time.Until(began.Add(p.agent.Settings.Budgets.window() + guardLate)))
	defer late.Stop()
	defer p.agent.windowTurned(time.Time{})
	for held := len(p.calls); held > 0; {
		select {
		case <-tick.C:
			p.guard.Beat()
			p.agent.windowTurned(time.Now())
		case c := <-p.fixed:
			c.inWindow = p.run.hold.inTime()
			held--
		case <-p.guard.Done():
			return nil
		case <-late.C:
			return errors.New("the guard did not thaw at its deadline, and was ended")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	failpoint.Hit("point-in-time")
	return nil
}

// holdJobs waits for the point in time of every snapshot, where nothing is frozen, but
// jobs are held, which are set going after that, or a holder takes the snapshot.
func (p *performer) holdJobs(ctx context.Context) error {
	if p.held == nil && p.run.hold == nil {
		return nil
	}
	limit := time.NewTimer(p.agent.Settings.Budgets.Snapshot)
	defer limit.Stop()
	for held := len(p.calls); held > 0; held-- {
		select {
		case c := <-p.fixed:
			c.inWindow = p.run.hold.inTime()
		case <-limit.C:
			p.setGoingTooEarly()
			return nil // the CPI is ended for it
		case <-ctx.Done():
			p.setGoingTooEarly()
			return context.Cause(ctx)
		}
	}
	return nil
}

func (p *performer) setGoingTooEarly() {
	if p.held != nil {
		p.moved = errTooEarly.Error()
	}
}

// send gives every CPI process its last byte, which is all that a snapshot waits
// for. A process that does not take it any more says why by its answer, or is
// ended with its budget, as one that took it. What is frozen is thawed by then at the
// latest.
func (p *performer) send(frozenUntil time.Time) {
	p.fixed = make(chan *call, len(p.calls))
	p.ended = make(chan *call, len(p.calls))
	for _, c := range p.calls {
		c.sent = time.Now()
		_ = c.process.Send()
		p.await(c)
	}
	if p.run.hold != nil {
		p.run.hold.begin(Lease{ID: p.run.ID(), Reached: p.record.Plan.Level, Reason: p.record.Plan.Degraded, FreezeBy: frozenUntil})
	}
}

// await says when what the call's snapshot holds is fixed, and when its process
// has ended. Only the daemon's own end makes it give up; the next daemon waits
// for the process instead.
func (p *performer) await(c *call) {
	p.waiting++
	p.agent.jobs.Go(func() {
		select {
		case <-c.process.PointInTime():
			p.fixed <- c
		case <-p.agent.lifetime.Done():
			return
		}
		select {
		case <-c.process.Done():
			if p.run.hold == nil { // a holder's word may be read already
				c.answered = time.Now()
			}
			p.ended <- c
		case <-p.agent.lifetime.Done():
		}
	})
}

// save makes the record durable, and what of its snapshots is to be known.
func (p *performer) save(taken ...Snapshot) error {
	p.agent.edit.Lock()
	defer p.agent.edit.Unlock()
	return p.agent.write(Change{Records: []Record{p.record}, Snapshots: taken})
}

// discard removes what the CPI printed, once nothing depends on it.
func (p *performer) discard() { p.agent.discard(p.run.ID()) }

func (a *Agent) discard(run string) {
	if err := errors.Join(os.RemoveAll(a.runDir(run)), os.RemoveAll(a.callDir(run))); err != nil {
		a.Log.Warn("cannot remove the run's directory", "run", run, "error", err)
	}
}
