package agent

import (
	"context"
	"errors"
	"time"
)

// holder is the work that holds the VM.
type holder struct {
	work    string
	run     *Run // nil for work that is no run
	since   time.Time
	makeWay func() // has the work end soon, since somebody else wants the VM; nil where others have to wait
}

// ErrMadeWay is the cause of work that ended because other work wanted the VM.
var ErrMadeWay = errors.New("other work wanted the VM")

// makeWayPatience is how long work may take to end that makes way: a CPI in the middle of
// a call has some seconds.
const makeWayPatience = 15 * time.Second

// acquire takes the VM for a piece of work, or says what holds it. What makes way for
// others ends for it.
func (a *Agent) acquire(work string, run *Run) error {
	h := &holder{work: work, run: run}
	if a.take(h) {
		return nil
	}
	if !a.displace() {
		return a.busy()
	}
	ctx, cancel := context.WithTimeout(context.Background(), makeWayPatience)
	defer cancel()
	if a.wait(ctx, h) != nil {
		return a.busy()
	}
	return nil
}

// take takes the VM if nothing holds it.
func (a *Agent) take(h *holder) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case a.slot <- struct{}{}:
		h.since = time.Now()
		a.holder = h
		return true
	default:
		return false
	}
}

// busy says what holds the VM.
func (a *Agent) busy() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	busy := &BusyError{Work: "other work", Since: time.Now()}
	if h := a.holder; h != nil {
		busy.Work, busy.Since = h.work, h.since
		if h.run != nil {
			busy.Phase = h.run.Phase()
		}
	}
	return busy
}

// displace has what holds the VM make way, if it is of that kind.
func (a *Agent) displace() bool {
	a.mu.Lock()
	h := a.holder
	a.mu.Unlock()
	if h == nil || h.makeWay == nil {
		return false
	}
	h.makeWay()
	return true
}

// await takes the VM for a run as soon as it is free.
func (a *Agent) await(ctx context.Context, work string, run *Run) error {
	a.displace()
	return a.wait(ctx, &holder{work: work, run: run})
}

func (a *Agent) wait(ctx context.Context, h *holder) error {
	select {
	case a.slot <- struct{}{}:
		h.since = time.Now()
		a.setHolder(h)
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (a *Agent) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.holder = nil
	<-a.slot
}

func (a *Agent) setHolder(h *holder) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.holder = h
}

// work does a piece of work that is no run while it holds the VM. The daemon's
// end cancels it, and waits for it.
func (a *Agent) work(ctx context.Context, name string, do func(context.Context) error) error {
	return a.doWork(ctx, name, nil, do)
}

// idleWork is work that begins only if nothing holds the VM, and ends with ErrMadeWay when
// something else wants it.
func (a *Agent) idleWork(ctx context.Context, name string, do func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	return a.doWork(ctx, name, func() { cancel(ErrMadeWay) }, do)
}

func (a *Agent) doWork(ctx context.Context, name string, makeWay func(), do func(context.Context) error) error {
	if err := a.admitWork(name, makeWay); err != nil {
		return err
	}
	defer a.jobs.Done()
	defer a.release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(a.lifetime, func() { cancel(ErrStopping) })()
	return do(ctx)
}

func (a *Agent) admitWork(name string, makeWay func()) error {
	a.admit.Lock()
	defer a.admit.Unlock()
	if a.lifetime.Err() != nil {
		return &RefusedError{Err: ErrStopping}
	}
	if makeWay != nil {
		if !a.take(&holder{work: name, makeWay: makeWay}) {
			return a.busy()
		}
	} else if err := a.acquire(name, nil); err != nil {
		return err
	}
	a.jobs.Add(1)
	return nil
}
