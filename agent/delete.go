package agent

import (
	"context"
	"errors"
	"fmt"
)

// Delete has the CPI delete a snapshot and drops it from the catalogue. The
// intent is durable first; if the CPI fails the entry stays, marked as deleting.
// Errors: *UnknownSnapshotError, *BusyError, *cpi.Error and its kin.
func (a *Agent) Delete(ctx context.Context, cid string) error {
	return a.work(ctx, "delete-snapshot "+cid, func(ctx context.Context) error {
		return a.deleteOne(ctx, cid)
	})
}

// DeleteAll deletes every snapshot whose CID is known, going on past failures,
// and says which it deleted. Unresolved entries stay.
func (a *Agent) DeleteAll(ctx context.Context) ([]string, error) {
	deleted := []string{}
	err := a.work(ctx, "delete-snapshots", func(ctx context.Context) error {
		var errs []error
		for _, s := range a.catalogue.list() {
			if s.State == SnapshotUnresolved {
				continue
			}
			err := a.deleteOne(ctx, s.CID)
			if err == nil {
				deleted = append(deleted, s.CID)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	return deleted, err
}

// work does a piece of work that is no run while it holds the VM. The daemon's
// end cancels it, and waits for it.
func (a *Agent) work(ctx context.Context, name string, do func(context.Context) error) error {
	if err := a.admitWork(name); err != nil {
		return err
	}
	defer a.jobs.Done()
	defer a.release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(a.lifetime, func() { cancel(ErrStopping) })()
	return do(ctx)
}

func (a *Agent) admitWork(name string) error {
	a.admit.Lock()
	defer a.admit.Unlock()
	if a.lifetime.Err() != nil {
		return &RefusedError{Err: ErrStopping}
	}
	if err := a.acquire(name, nil); err != nil {
		return err
	}
	a.jobs.Add(1)
	return nil
}

// deleteOne deletes a snapshot, for whoever holds the VM. Errors:
// *UnknownSnapshotError, *RefusedError without a CPI; with any other the entry is marked
// as deleting, unless not even that could be recorded.
func (a *Agent) deleteOne(ctx context.Context, cid string) error {
	if _, err := a.catalogue.withCID(cid); err != nil {
		return err
	}
	if a.CPI == nil {
		return refuse("", "no CPI is configured (cpi.path)")
	}
	free, err := a.use(cid, "delete-snapshot "+cid)
	if err != nil {
		return err
	}
	defer free()
	if err := a.editSnapshot(cid, func(s *Snapshot) { s.State = SnapshotDeleting }); err != nil {
		return fmt.Errorf("cannot record that %q is to be deleted: %w", cid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, a.Settings.Budgets.Snapshot)
	defer cancel()
	if err := a.CPI.DeleteSnapshot(ctx, cid); err != nil {
		return fmt.Errorf("cannot delete snapshot %q: %w", cid, err)
	}
	if err := a.forget(cid); err != nil {
		return fmt.Errorf("cannot record that %q was deleted: %w", cid, err)
	}
	a.Log.Info("snapshot deleted", "snapshot", cid)
	return nil
}

// SetVerified makes durable what came of looking whether a snapshot is good.
// *UnknownSnapshotError where it is not in the catalogue.
func (a *Agent) SetVerified(cid string, v Verification) error {
	err := a.editSnapshot(cid, func(s *Snapshot) { s.Verified = &v })
	if err != nil && !errors.As(err, new(*UnknownSnapshotError)) {
		return fmt.Errorf("cannot record that %q was verified: %w", cid, err)
	}
	return err
}

// editSnapshot changes the entry of one snapshot, and of no other.
func (a *Agent) editSnapshot(cid string, change func(*Snapshot)) error {
	a.edit.Lock()
	defer a.edit.Unlock()
	s, err := a.catalogue.withCID(cid)
	if err != nil {
		return err
	}
	change(&s)
	return a.write(Change{Snapshots: []Snapshot{s}})
}

// forget drops one snapshot from the catalogue.
func (a *Agent) forget(cid string) error {
	a.edit.Lock()
	defer a.edit.Unlock()
	s, err := a.catalogue.withCID(cid)
	if err != nil {
		return err
	}
	return a.write(Change{Gone: []SnapshotKey{s.Key()}})
}
