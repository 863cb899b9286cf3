package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// ErrYielded is the cause of a run that ends since the director takes the jobs.
var ErrYielded = errors.New("the director takes the jobs over (quiesced yield)")

// yieldLasts is how long the director has the jobs to itself when nobody says
// that it is done: a deploy that failed on the way never does. Services that a run
// of ours had stopped are then started, if they are still stopped in its name.
const yieldLasts = time.Hour

// Yield leaves the jobs to the director until Unyield: a run that holds any is
// ended, what it froze is thawed and what it locked unlocked, and services are left
// as they are. It returns when that is so, and can be repeated.
func (a *Agent) Yield(ctx context.Context) error {
	if err := os.WriteFile(a.YieldFile, nil, 0o600); err != nil {
		return fmt.Errorf("cannot remember that the director has the jobs: %w", err)
	}
	a.Log.Info("yielding the jobs to the director")
	a.endVerification(ErrYielded) // the VM may be recreated, and nobody would know of its disk
	for {                         // what one hold held may be another's by now
		run := a.holderRun()
		if run == nil || isClosed(run.Resumed()) {
			return nil
		}
		run.cancel(ErrYielded)
		select {
		case <-run.Resumed():
		case <-ctx.Done():
			phase, since := run.Progress()
			return &BusyError{Work: "run " + run.ID() + ", which has not let go of everything yet", Phase: phase, Since: since}
		}
	}
}

// Unyield takes the jobs back from the director. What a run had stopped before, and
// the director neither stopped nor started since, is set going again.
func (a *Agent) Unyield() error {
	if err := os.Remove(a.YieldFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot forget that the director has the jobs: %w", err)
	}
	select {
	case a.again <- struct{}{}:
	default: // it is about to be looked at anyway
	}
	return nil
}

// yielded says whether the director has the jobs to itself, and since when.
func (a *Agent) yielded() (time.Time, bool) {
	st, err := os.Stat(a.YieldFile)
	if err != nil || time.Since(st.ModTime()) > yieldLasts {
		return time.Time{}, false
	}
	return st.ModTime(), true
}

// holderRun is the run that holds the VM, nil for none.
func (a *Agent) holderRun() *Run {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.holder == nil {
		return nil
	}
	return a.holder.run
}

func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}
