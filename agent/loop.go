package agent

import (
	"context"
	"sync"
	"time"
)

// turnEvery is how often the run loop turns.
const turnEvery = time.Second

// hungAfter is how long the loop of a frozen window may stand still before it
// counts as hung. It turns with each heartbeat; the guard has long thawed then.
const hungAfter = 5 * time.Second

// Run is the daemon's run loop, until ctx ends: it tells Turned that it turns,
// has what could not be thawed, recorded or deleted tried again, and retention applied. It turns whatever a
// CPI, a disk or a thaw takes, and stands still where the agent hangs: where its
// state is never unlocked any more, or the loop that beats for the guard stands.
func (a *Agent) Run(ctx context.Context) {
	var retries sync.WaitGroup
	defer retries.Wait()
	retries.Go(func() { a.retryOn(ctx) })
	retries.Go(func() { a.retryHeldOn(ctx) })
	retries.Go(func() { a.redeleteOn(ctx) })
	retries.Go(func() { a.retainOn(ctx) })
	retries.Go(func() { a.copyOn(ctx) })
	tick := time.NewTicker(turnEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if a.turns() && a.Turned != nil {
				a.Turned()
			}
		}
	}
}

// turns says whether the loop of the frozen window, if there is one, still turns.
func (a *Agent) turns() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.turned.IsZero() || time.Since(a.turned) < hungAfter
}

// Resuming says whether a run is setting jobs going again, which may take minutes.
func (a *Agent) Resuming() bool {
	run := a.holderRun()
	return run != nil && run.isGoing()
}

// windowTurned notes that the loop of a frozen window turned; the zero time is
// its end.
func (a *Agent) windowTurned(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turned = at
}
