package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce"
	"github.com/quiesced/quiesced/quiesce/failpoint"
	"github.com/quiesced/quiesced/quiesce/guard"
	"github.com/quiesced/quiesced/quiesce/jobs"
)

// Observer is told what happened, for metrics. Its methods return at once.
type Observer interface {
	RunEnded(Report)
	VerificationEnded(Verified, error)
	JournalFailed()
}

// Holder keeps what the program would write to a disk, from Hold to Release.
type Holder interface {
	Hold()
	Release()
}

// Parts is what an Agent is built from.
type Parts struct {
	Settings Settings
	Journal  Journal
	Freezer  *quiesce.Freezer
	System   quiesce.System
	Supervised
	CPI        *cpi.Client // nil when no CPI is configured
	Copies     Copies      // of the catalogue, nil for none
	Observer   Observer
	Timekeeper *Timekeeper // of the scheduled runs, nil for none
	Scratch    ScratchStore
	Log        *slog.Logger
	Writes     Holder // holds the log while something is frozen; nil for none
	Turned     func() // called at every turn of the run loop, once a second; nil for none
}

// Agent takes snapshots, one run at a time.
type Agent struct {
	Parts
	slot  chan struct{} // holds one token while work holds the VM
	jobs  sync.WaitGroup
	again chan struct{} // one token has it tried again at once to set jobs going
	apply chan struct{} // one token has retention applied

	admit sync.Mutex // held while a request is matched with the runs there are
	edit  sync.Mutex // held while records and snapshots are written, or read, changed and written

	catalogue *catalogue    // set before the first request
	copier    copier        // of the catalogue
	changed   chan struct{} // one token has the catalogue copied at once

	mu        sync.Mutex
	holder    *holder           // guarded by mu: what holds the slot
	runs      map[string]*Run   // guarded by mu: under way, or ended without a record
	order     []string          // guarded by mu: ids of runs, oldest first
	unsaved   Change            // guarded by mu: what the journal would not take
	redeletes Redeletes         // guarded by mu
	last      *Report           // guarded by mu: of the run that ended last, nil for none
	restored  *Report           // guarded by mu: of the restore that ended last and exchanged disks, nil for none
	stuck     []guard.Recovered // guarded by mu: what recovery could not thaw
	left      *Held             // guarded by mu: of the jobs what could not be set going, nil for nothing
	unread    error             // guarded by mu: records of freezes that could not be made good nor understood
	turned    time.Time         // guarded by mu: when the loop of a frozen window last turned, zero outside one
	retired   RetentionCounts   // guarded by mu
	lingering *lingering        // guarded by mu: the hold that waits for the director's next call, nil for none
	inUse     map[string]usages // guarded by mu: snapshots, by CID, with which something is done
	lastGood  time.Time         // guarded by mu: when a snapshot was last found good, of those that are known
	verifying *verification     // guarded by mu: the one that is under way, or whose disk is not removed yet
	lifetime  context.Context   // ends when the daemon stops
	stop      context.CancelCauseFunc
}

// keptRuns bounds the runs kept in memory for those who still ask for them.
const keptRuns = 64

// New makes an agent. Recover must be called before the first request.
func New(p Parts) *Agent {
	a := &Agent{
		Parts:     p,
		slot:      make(chan struct{}, 1),
		runs:      map[string]*Run{},
		changed:   make(chan struct{}, 1),
		again:     make(chan struct{}, 1),
		apply:     make(chan struct{}, 1),
		inUse:     map[string]usages{},
		catalogue: newCatalogue(nil),
	}
	if a.Supervisor == nil {
		a.Supervisor = jobs.None{}
	}
	a.lifetime, a.stop = context.WithCancelCause(context.Background())
	return a
}

// Close interrupts the run under way with ErrStopping, which thaws, and waits
// until everything the agent started has ended.
func (a *Agent) Close() {
	a.admit.Lock() // nothing is begun after this
	a.stop(ErrStopping)
	a.admit.Unlock()
	a.jobs.Wait()
}

// Take begins a run, or joins the one with the request's id, or finds its
// report. It returns as soon as the run is begun; the run goes on when ctx
// ends. Errors: *RefusedError, *BusyError, a journal that takes no record; in
// each case nothing was touched.
func (a *Agent) Take(ctx context.Context, r Request) (*Run, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, wrong := a.Settings.completed(r)
	gone := errors.As(wrong, new(*NotAttachedError)) // all else of the request is good
	if wrong != nil && !gone {
		a.observeRefusal(r)
		return nil, wrong
	}
	a.admit.Lock()
	defer a.admit.Unlock()
	if a.lifetime.Err() != nil {
		return nil, &RefusedError{Err: ErrStopping}
	}
	if run, err := a.known(r); run != nil || err != nil { // its disk may have been detached since
		return run, err
	}
	if gone {
		if r.Lease == 0 { // a director asks for inactive disks, too
			a.observeRefusal(r)
		}
		return nil, wrong
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

// Find is the run with an id, under way or ended; ErrUnknownTask if none is
// known.
func (a *Agent) Find(id string) (*Run, error) {
	a.mu.Lock()
	run, ok := a.runs[id]
	unsaved, waits := a.unsaved.record(id)
	a.mu.Unlock()
	switch {
	case ok:
		return run, nil
	case waits:
		return endedRun(unsaved), nil
	}
	record, ok, err := a.Journal.Get(id)
	if err != nil {
		return nil, a.journalFailed(err)
	}
	if !ok || record.Report == nil {
		return nil, ErrUnknownTask
	}
	return endedRun(record), nil
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

// Plan says what a request would do, and touches nothing.
func (a *Agent) Plan(ctx context.Context, r Request) (*Plan, error) {
	r, err := a.Settings.completed(r)
	if err != nil {
		return nil, err
	}
	plan, _, err := a.plan(ctx, r)
	return plan, err
}

// plan looks at the disks and the jobs, checks that the daemon depends on none of
// what is to be frozen, and decides.
func (a *Agent) plan(ctx context.Context, r Request) (*Plan, *Inventory, error) {
	disks, err := a.Settings.selected(r.Disks)
	if err != nil {
		return nil, nil, err
	}
	if err := a.checkCPI(r); err != nil {
		return nil, nil, err
	}
	in, err := a.inventory(ctx, r.Level)
	if err != nil {
		return nil, nil, err
	}
	plan, err := a.survey(r, disks, in)
	return plan, in, err
}

// checkCPI says what is wrong with the CPI, where it is needed.
func (a *Agent) checkCPI(r Request) error {
	if r.Lease != 0 {
		return nil
	}
	if a.CPI == nil {
		return refuse("", "no CPI is configured (cpi.path)")
	}
	if err := a.CPI.Check(); err != nil {
		return &RefusedError{Err: err}
	}
	return nil
}

// survey looks at the disks, and plans by what it finds.
func (a *Agent) survey(r Request, disks []quiesce.Disk, in *Inventory) (*Plan, error) {
	survey, err := a.System.Survey()
	if err != nil {
		return nil, err
	}
	on, err := survey.Filesystems(disks)
	if err != nil {
		return nil, &RefusedError{Err: err}
	}
	plan, err := newPlan(r, &a.Settings, disks, on, in)
	if err != nil || !plan.Freezes() {
		return plan, err
	}
	if err := survey.Independent(plan.Filesystems, a.Settings.Depends); err != nil {
		return nil, &RefusedError{Err: err}
	}
	return plan, nil
}

// keep makes a run findable by its id, and forgets the oldest ended ones.
func (a *Agent) keep(run *Run) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.runs[run.request.ID] = run
	a.order = append(slices.DeleteFunc(a.order, func(id string) bool { return id == run.request.ID }), run.request.ID)
	a.order = slices.DeleteFunc(a.order, func(id string) bool {
		_, ended := a.runs[id].Report()
		if len(a.runs) <= keptRuns || !ended {
			return false
		}
		delete(a.runs, id)
		return true
	})
}

// conclude ends a run of which there is no record.
func (a *Agent) conclude(run *Run, r Report) {
	r.ID, r.Trigger, r.By = run.request.ID, run.request.Trigger, run.request.By
	r.Started, r.Ended = run.started, time.Now()
	run.end(r)
	a.Observer.RunEnded(r)
}

// refused ends a run that could not begin.
func (a *Agent) refused(run *Run, err error) {
	a.conclude(run, Report{Outcome: OutcomeRefused, Asked: run.request.Level, Reached: LevelNone, Error: err.Error()})
}

func (a *Agent) observeRefusal(r Request) {
	a.Observer.RunEnded(Report{ID: r.ID, Trigger: r.Trigger, Asked: r.Level, Outcome: OutcomeRefused})
}

func (a *Agent) journalFailed(err error) error {
	a.Observer.JournalFailed()
	return err
}
