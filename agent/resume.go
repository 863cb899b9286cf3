package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce/failpoint"
	"github.com/quiesced/quiesced/quiesce/guard"
)

// endFreeze thaws first, then ends the CPI processes that were never told to go on.
// It has a deadline of its own, which no cancellation shortens. Its error means that
// something is still frozen. The log goes on even then: whoever is to help reads it,
// and no logger waits for its being written.
func (p *performer) endFreeze() error {
	if p.guard != nil {
		p.run.setPhase(PhaseResume)
	}
	close(p.going)
	defer p.timed(PhaseResume, time.Now())
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.run.ctx), p.agent.Settings.Budgets.Resume)
	defer cancel()
	failpoint.Hit("before-thaw")
	err := p.thaw(ctx)
	failpoint.Hit("after-thaw")
	p.agent.hold(false)
	for _, c := range p.calls {
		if c.sent.IsZero() {
			c.process.Abort()
		}
	}
	if p.held != nil {
		p.checkAtRest(ctx)
	}
	return err
}

// setGoing sets the jobs going again, once nothing is frozen. Nothing is started or unlocked on a
// filesystem that is still frozen: it would wait there for good.
func (p *performer) setGoing(thawed bool) error {
	if p.held == nil {
		return nil
	}
	defer p.timed(PhaseResume, time.Now())
	p.run.setGoing()
	ctx := context.WithoutCancel(p.run.ctx)
	g := &going{agent: p.agent, held: *p.held, run: p.run, note: p.note, tried: p.tried, save: p.saveHeld, up: p.jobsUp, free: p.jobsFree, timed: p.timed}
	if !thawed && !g.held.Empty() {
		p.agent.leaveHeld(g.held)
		return errors.New("jobs are held as long as a filesystem is frozen")
	}
	failed, notResumed := g.undo(ctx)
	p.undone = failed
	if !g.held.Empty() {
		p.agent.leaveHeld(g.held)
	}
	return notResumed
}

// checkAtRest notes why the jobs were not at rest until now, if they were not.
func (p *performer) checkAtRest(ctx context.Context) {
	if p.recovered && p.told() && !p.record.Plan.Freezes() { // nothing was held back for the CPI
		p.moved = errTooEarly.Error()
	}
	if p.told() && p.record.Plan.Level == LevelStop && p.moved == "" {
		p.moved = p.agent.moved(ctx, p.record.Plan.JobsAtRest, p.held)
	}
}

// saveHeld makes durable what is left of what is held. While undoing a failure
// stops nothing: what was undone is then undone again by whoever comes after.
func (p *performer) saveHeld(h Held) {
	p.remember()
	if err := p.hold(h); err != nil {
		p.agent.Log.Error("cannot record what is held of the jobs", "run", p.run.ID(), "error", err)
	}
}

// remember puts into the record what the report will need, should another daemon
// make it.
func (p *performer) remember() {
	p.record.Moved, p.record.Notes = p.moved, p.notes
	if p.undone != nil {
		p.record.Undone = p.undone.Error()
	}
}

func (p *performer) jobsUp() {
	if !p.downSince.IsZero() {
		p.timed(PhaseJobsDown, p.downSince)
	}
}

func (p *performer) jobsFree() {
	if !p.lockedSince.IsZero() {
		p.timed(PhaseLocked, p.lockedSince)
	}
}

// hold keeps this program from writing, or lets it go on.
func (a *Agent) hold(on bool) {
	switch {
	case a.Writes == nil:
	case on:
		a.Writes.Hold()
	default:
		a.Writes.Release()
	}
}

// thaw ends the guard. Its error means that something may still be frozen.
func (p *performer) thaw(ctx context.Context) error {
	if p.guard == nil {
		return nil
	}
	result, err := p.guard.Thaw(ctx)
	for _, warning := range p.guard.Warnings() {
		p.note("the guard: " + warning)
	}
	p.freezeEnded(result, context.Cause(p.run.ctx))
	if err != nil {
		p.agent.addStuck(guard.Recovered{RunID: p.run.ID(), Result: result, Err: err})
		return fmt.Errorf("cannot thaw: %w", err)
	}
	return nil
}

// collect waits for the processes that the window did not wait for, and reads
// every answer. It returns false when the daemon stops meanwhile: the record
// stays without a report, and the next daemon goes on from it.
func (p *performer) collect() bool {
	budget := time.NewTimer(p.agent.Settings.Budgets.Snapshot - time.Since(p.firstSent()))
	defer budget.Stop()
	overran := false
	cancelled := p.run.ctx.Done()
	for p.waiting > 0 {
		select {
		case c := <-p.ended:
			c.over = true
			if c.answered.IsZero() {
				c.answered = time.Now()
			}
			p.waiting--
		case <-cancelled: // nothing is held any more, so only the report changes
			p.cancelled, cancelled = context.Cause(p.run.ctx), nil
		case <-budget.C:
			if overran {
				p.waiting = 0 // not even SIGKILL ends it
				continue
			}
			overran = true
			p.overrun()
			budget.Reset(killGrace)
		case <-p.agent.lifetime.Done():
			return false
		}
	}
	for _, c := range p.calls {
		c.read()
	}
	return true
}

// read takes the answer of a process that was told to go on and has ended.
func (c *call) read() {
	if c.sent.IsZero() || c.process == nil {
		return
	}
	if !c.over {
		c.err = errors.New("its process cannot be ended")
		return
	}
	answer, err := c.process.Wait(context.Background()) // at once: it has ended
	if answer.Result == nil && err != nil {
		c.err = err
		return
	}
	c.cid, c.err = cpi.SnapshotCID(c.disk, answer.Result)
}

func (p *performer) firstSent() time.Time {
	for _, c := range p.calls {
		if !c.sent.IsZero() {
			return c.sent
		}
	}
	return time.Now()
}

// overrun ends the CPI processes that took longer than their budget. What they
// printed until then still counts.
func (p *performer) overrun() {
	for _, c := range p.calls {
		if c.process == nil || c.sent.IsZero() {
			continue
		}
		select {
		case <-c.process.Done(): // in time, if not taken note of yet
		default:
			c.overran = true
			c.process.Kill(killGrace)
		}
	}
}

// freezeEnded notes in the record how the freeze ended, from what the guard left
// behind. cause is why the run was cut off, nil if it was not.
func (p *performer) freezeEnded(held guard.Result, cause error) {
	if !p.record.Plan.Freezes() {
		return
	}
	p.record.Freeze = &FreezeEnd{Broken: p.howBroken(held, cause), Thaws: thaws(held), Phases: p.phases}
	for _, f := range held.Filesystems {
		p.phases[PhaseFrozen] = max(p.phases[PhaseFrozen], f.HeldFor)
	}
}

// howBroken says why what was to be frozen was not so until every point in time
// was fixed, "" if it was.
func (p *performer) howBroken(held guard.Result, cause error) string {
	switch {
	case held.Cause == guard.CauseAsked && p.allInWindow() && held.Unbroken():
		return ""
	case held.Cause == guard.CauseForeign, held.Cause == guard.CauseAsked && p.allInWindow():
		return "somebody else thawed a filesystem while the CPI was taking the snapshot"
	case held.Cause == guard.CauseAsked && cause != nil:
		return fmt.Sprintf("the freeze ended before the point in time was fixed (%s)", cause)
	}
	return fmt.Sprintf("the freeze ended before the point in time was fixed (%s)", held.Cause)
}

// broken says why the snapshots were not taken in an unbroken freeze, "" if they
// were, or needed none.
func (p *performer) broken() string {
	switch {
	case !p.record.Plan.Freezes() || !p.told():
		return ""
	case p.record.Freeze == nil:
		return "how the freeze ended is not known"
	}
	return p.record.Freeze.Broken
}

// told says whether any CPI process was told to go on.
func (p *performer) told() bool {
	for _, c := range p.calls {
		if !c.sent.IsZero() {
			return true
		}
	}
	return false
}

// allInWindow says whether every point in time was fixed in the window.
func (p *performer) allInWindow() bool {
	for _, c := range p.calls {
		if !c.inWindow {
			return false
		}
	}
	return true
}

// thaws is how the freeze of each filesystem ended.
func thaws(held guard.Result) []Thaw {
	var all []Thaw
	for _, f := range held.Filesystems {
		if f.FrozenAt.IsZero() {
			continue
		}
		state := f.State.String()
		if f.Unseen {
			state = "thawed, unconfirmed"
		}
		all = append(all, Thaw{Mount: f.Path, Cause: held.Cause.String(), State: state, FrozenFor: f.HeldFor})
	}
	return all
}

// whyNot joins the errors of a run in the order in which they happened.
func (p *performer) whyNot(err, resumed error) error {
	all := []error{err}
	for _, c := range p.calls {
		if c.err == nil {
			continue
		}
		all = append(all, c.failure(p.agent.Settings.Budgets.Snapshot))
	}
	return errors.Join(append(all, p.undone, resumed)...)
}

func (c *call) failure(budget time.Duration) error {
	if c.overran {
		return fmt.Errorf("cannot snapshot disk %q: the CPI took longer than budgets.snapshot (%s): %w", c.disk, budget, c.err)
	}
	return fmt.Errorf("cannot snapshot disk %q: %w", c.disk, c.err)
}
