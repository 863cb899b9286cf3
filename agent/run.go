package agent

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// Run is one run as others see it: a handle to follow and to cancel it.
type Run struct {
	request Request
	started time.Time
	ctx     context.Context // cancelled with the cause that ends the run early
	cancel  context.CancelCauseFunc
	resumed chan struct{} // closed when nothing of the run is held any more
	done    chan struct{} // closed when the report is there
	hold    *hold         // nil unless somebody else takes the snapshot

	resume    sync.Once // closes resumed
	mu        sync.Mutex
	doing     map[string]string // guarded by mu: what is being done to each job or service, or was last
	phase     Phase             // guarded by mu
	since     time.Time         // guarded by mu: when the phase began
	report    *Report           // guarded by mu
	resumeErr error             // guarded by mu
	going     bool              // guarded by mu: jobs are being set going
}

func newRun(parent context.Context, r Request) *Run {
	run := &Run{request: r, started: time.Now(), resumed: make(chan struct{}), done: make(chan struct{})}
	run.ctx, run.cancel = context.WithCancelCause(parent)
	if run.hold = newHold(r, run.cancel); run.hold != nil {
		context.AfterFunc(run.ctx, func() { run.hold.cutOff(context.Cause(run.ctx)) })
	}
	return run
}

// endedRun is the handle of a run that a record tells of.
func endedRun(r Record) *Run {
	run := newRun(context.Background(), r.Request)
	run.started = r.Started
	run.end(*r.Report)
	return run
}

// ID is the request's id.
func (r *Run) ID() string { return r.request.ID }

// Request is what was asked for, completed from the configuration.
func (r *Run) Request() Request { return r.request }

// Started is when the run was asked for.
func (r *Run) Started() time.Time { return r.started }

// Done is closed when the run has ended.
func (r *Run) Done() <-chan struct{} { return r.done }

// Resumed is closed when everything was set going again, or could not be:
// ResumeError tells.
func (r *Run) Resumed() <-chan struct{} { return r.resumed }

// ResumeError says, once Resumed is closed, what could not be set going again.
func (r *Run) ResumeError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.resumeErr
}

// setResumed is called once with what came of resuming; a run that never held
// anything comes by in end alone.
func (r *Run) setResumed(err error) {
	r.resume.Do(func() {
		r.mu.Lock()
		r.resumeErr, r.going = err, false
		r.mu.Unlock()
		close(r.resumed)
	})
}

// setGoing says that jobs are being set going, until setResumed.
func (r *Run) setGoing() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.going = true
}

func (r *Run) notGoing() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.going = false
}

func (r *Run) isGoing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.going
}

// Cancel ends the run early: what is frozen is thawed at once. A CPI call
// that was already made is waited for, so that its CID is not lost. It has no
// effect on a run that has ended.
func (r *Run) Cancel() { r.cancel(ErrCancelled) }

// Report is the report, and whether the run has ended.
func (r *Run) Report() (Report, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.report == nil {
		return Report{}, false
	}
	return *r.report, true
}

// Phase is what the run is doing.
func (r *Run) Phase() Phase {
	phase, _ := r.Progress()
	return phase
}

// Progress is what the run is doing and since when.
func (r *Run) Progress() (Phase, time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.phase, r.since
}

func (r *Run) setPhase(p Phase) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phase, r.since = p, time.Now()
}

// Doing is what is being done to each job and service, or was last, by name.
func (r *Run) Doing() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.doing)
}

func (r *Run) setDoing(name, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.doing == nil {
		r.doing = map[string]string{}
	}
	r.doing[name] = what
}

// scriptTold notes that a script began or ended.
func (r *Run) scriptTold(s jobs.Script, done bool) {
	what := s.Name
	if done {
		what += " done"
	}
	r.setDoing(owner(s), what)
}

// serviceTold notes how a service is.
func (r *Run) serviceTold(name string, s jobs.State) { r.setDoing(name, string(s)) }

// amend replaces the report of a run that has ended.
func (r *Run) amend(report Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report = &report
}

// end publishes the report.
func (r *Run) end(report Report) {
	r.setResumed(nil)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report = &report
	close(r.done)
	r.cancel(nil)
}
