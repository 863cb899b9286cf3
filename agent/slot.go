package agent

import (
	"context"
	"time"
)

// holder is the work that holds the VM.
type holder struct {
	work  string
	run   *Run // nil for a deletion
	since time.Time
}

// acquire takes the VM for a piece of work, or says what holds it.
func (a *Agent) acquire(work string, run *Run) error {
	select {
	case a.slot <- struct{}{}:
		a.setHolder(&holder{work: work, run: run, since: time.Now()})
		return nil
	default:
	}
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

// await takes the VM for a run as soon as it is free.
func (a *Agent) await(ctx context.Context, work string, run *Run) error {
	select {
	case a.slot <- struct{}{}:
		a.setHolder(&holder{work: work, run: run, since: time.Now()})
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (a *Agent) release() {
	a.setHolder(nil)
	<-a.slot
}

func (a *Agent) setHolder(h *holder) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.holder = h
}
