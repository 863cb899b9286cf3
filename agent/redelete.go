package agent

import (
	"context"
	"errors"
	"time"
)

// redeleteEvery is how often it is looked for snapshots that are half deleted, and
// redeleteAtMost how long at most after one could not be deleted.
const (
	redeleteEvery  = time.Minute
	redeleteAtMost = time.Hour
)

// Redeletes counts, since the daemon began, how often it was tried again to delete a
// snapshot, and how often that failed.
type Redeletes struct{ Tried, Failed int }

// redeleteOn deletes, until ctx ends, what was to be deleted and is not yet: its CPI failed,
// or its daemon ended. Each failure doubles the wait.
func (a *Agent) redeleteOn(ctx context.Context) {
	wait := redeleteEvery
	next := time.NewTimer(lookAgain) // after a start
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		wait = nextWait(wait, a.redelete(ctx))
		next.Reset(wait)
	}
}

// nextWait is how long to wait after what came of trying.
func nextWait(wait time.Duration, err error) time.Duration {
	if err == nil || errors.Is(err, ErrMadeWay) || errors.As(err, new(*BusyError)) {
		return redeleteEvery
	}
	return min(2*wait, redeleteAtMost)
}

// redelete tries every snapshot that is half deleted, while nothing else wants the VM.
func (a *Agent) redelete(ctx context.Context) error {
	half := a.halfDeleted()
	if len(half) == 0 || a.CPI == nil {
		return nil
	}
	return a.idleWork(ctx, "deleting what was to be deleted", func(ctx context.Context) error {
		var errs []error
		for _, s := range half {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			errs = append(errs, a.redeleteOne(ctx, s.CID))
		}
		return errors.Join(errs...)
	})
}

func (a *Agent) redeleteOne(ctx context.Context, cid string) error {
	err := a.deleteOne(ctx, cid)
	if ctx.Err() != nil {
		return context.Cause(ctx) // it was not given its time
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.redeletes.Tried++
	if err != nil {
		a.redeletes.Failed++
		a.Log.Error("cannot delete what was to be deleted; trying again", "snapshot", cid, "error", err)
	}
	return err
}

// halfDeleted are the snapshots that are to be deleted.
func (a *Agent) halfDeleted() []Snapshot {
	var half []Snapshot
	for _, s := range a.catalogue.list() {
		if s.State == SnapshotDeleting {
			half = append(half, s)
		}
	}
	return half
}
