package agent

import (
	"context"
	"errors"

	"github.com/quiesced/quiesced/quiesce/failpoint"
)

// Take begins a run, or joins the one with the request's id, or finds its
// report. It returns as soon as the run is begun; the run goes on when ctx
// ends. Errors: *RefusedError, *BusyError, a journal that takes no record; in
// each case nothing was touched.
func (a *Agent) Take(ctx context.Context, r Request) (*Run, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := a.Settings.completed(r)
	if err != nil && !errors.As(err, new(*NotAttachedError)) {
		a.observeRefusal(r)
		return nil, err
	}
	a.admit.Lock()
	defer a.admit.Unlock()
	return a.admitLocked(r, err)
}

// admitLocked is Take of a request in which all is good but that its disk may not be
// attached, which gone says.
func (a *Agent) admitLocked(r Request, gone error) (*Run, error) {
	if a.lifetime.Err() != nil {
		return nil, &RefusedError{Err: ErrStopping}
	}
	if run, err := a.known(r); run != nil || err != nil { // its disk may have been detached since
		return run, err
	}
	if gone != nil {
		if r.Lease == 0 { // a director asks for inactive disks, too
			a.observeRefusal(r)
		}
		return nil, gone
	}
	if !a.Settings.Enabled {
		return a.disabled(r), nil
	}
	if err := a.refuseStuck(r); err != nil {
		a.observeRefusal(r)
		return nil, err
	}
	if run := a.continued(r); run != nil {
		a.keep(run)
		return run, nil
	}
	if r.Wait {
		return a.queue(r), nil
	}
	return a.start(r)
}

// known finds the run that has the request's id already.
func (a *Agent) known(r Request) (*Run, error) {
	run, err := a.Find(r.ID)
	if errors.Is(err, ErrUnknownTask) {
		return nil, a.refuseForgotten(r.ID)
	}
	if err != nil {
		return nil, err
	}
	if report, ended := run.Report(); ended && report.Outcome == OutcomeRefused {
		return nil, nil // nothing was touched: asking again is a new attempt
	}
	if !run.request.same(r) {
		return nil, refuse("id", "%q was used for another request", r.ID)
	}
	return run, nil
}

// refuseForgotten refuses the id of a run that is not remembered any more, but whose
// snapshots are.
func (a *Agent) refuseForgotten(id string) error {
	if taken := a.catalogue.ofRun(id); len(taken) > 0 {
		return refuse("id", "%q was used for the run that took snapshot %q", id, taken[0].CID)
	}
	return nil
}

// disabled answers as a director does: done, with nothing to show.
func (a *Agent) disabled(r Request) *Run {
	run := newRun(a.lifetime, r)
	a.keep(run)
	a.conclude(run, Report{Outcome: OutcomeDisabled, Asked: r.Level, Reached: LevelNone, Reason: "snapshots are disabled"})
	return run
}

// start begins a run now or says what is in its way.
func (a *Agent) start(r Request) (*Run, error) {
	run := newRun(a.lifetime, r)
	if err := a.acquire("run "+r.ID, run); err != nil {
		return nil, err
	}
	p, err := a.begin(run)
	if err != nil {
		a.release()
		a.observeRefusal(r)
		return nil, err
	}
	a.keep(run)
	a.jobs.Go(func() { a.conduct(p) })
	return run, nil
}

// conduct performs a run that holds the VM. Whoever learns that it has ended
// finds the VM free.
func (a *Agent) conduct(p *performer) {
	report, ended := p.perform()
	if p.next != nil { // it has the VM already
		p.publish(report)
		a.conduct(p.next)
		return
	}
	a.release()
	if ended {
		p.publish(report)
	}
}

// queue begins a run when the work that holds the VM has ended.
func (a *Agent) queue(r Request) *Run {
	run := newRun(a.lifetime, r)
	run.setPhase(PhaseWaiting)
	a.keep(run)
	a.jobs.Go(func() {
		if err := a.await(run.ctx, "run "+r.ID, run); err != nil {
			a.conclude(run, Report{Outcome: OutcomeCancelled, Asked: r.Level, Reached: LevelNone, Error: err.Error()})
			return
		}
		p, err := a.begin(run)
		if err != nil {
			a.release()
			a.refused(run, err)
			return
		}
		a.conduct(p)
	})
	return run
}

// begin plans the run and makes its record durable.
func (a *Agent) begin(run *Run) (*performer, error) {
	if err := errors.Join(a.refuseStuck(run.request), a.refuseHeld(run.request.Level.jobs())); err != nil {
		return nil, err
	}
	plan, in, err := a.plan(run.ctx, run.request)
	if err != nil {
		return nil, err
	}
	if err := a.refuseHeld(plan.touchesJobs()); err != nil {
		return nil, err
	}
	return a.record(run, plan, in, nil)
}

// beginWith is begin for a hold that goes on from what an earlier one holds.
func (a *Agent) beginWith(run *Run, in *Inventory, held *Held) (*performer, error) {
	if err := a.refuseStuck(run.request); err != nil {
		return nil, err
	}
	disks, err := a.Settings.selected(run.request.Disks)
	if err != nil {
		return nil, err
	}
	plan, err := a.survey(run.request, disks, in)
	if err != nil {
		return nil, err
	}
	return a.record(run, plan, in, held)
}

// record makes a run's record durable, before anything else is done.
func (a *Agent) record(run *Run, plan *Plan, in *Inventory, held *Held) (*performer, error) {
	p := &performer{agent: a, run: run, inventory: in, held: held, asked: disksOf(plan.Disks), going: make(chan struct{}), record: Record{
		Request: run.request,
		Plan:    *plan,
		Held:    held,
		Boot:    bootID(),
		Started: run.started,
		Phase:   PhasePrepare,
	}}
	failpoint.Hit("unrecorded")
	if err := p.save(); err != nil {
		return nil, refuse("", "cannot record the run before it begins: %w", err)
	}
	failpoint.Hit("recorded")
	return p, nil
}
