package agent

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce"
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
