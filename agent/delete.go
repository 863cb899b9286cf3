package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/quiesced/quiesced/quiesce/failpoint"
)

// Deleted is what came of deleting snapshots, by their CIDs.
type Deleted struct {
	CIDs []string // that are in the catalogue no more
	Gone []string // those of them that were not there any more, as the CPI says
	Held []string // that were left, since the director's database owns them
}

// Delete has the CPI delete a snapshot and drops it from the catalogue, be it one that was
// taken in a hold: whoever names it means it. The intent is durable first; if the CPI fails
// the entry stays, marked as deleting, and is tried again.
// Errors: *UnknownSnapshotError, *RefusedError, *BusyError, *cpi.Error and its kin.
func (a *Agent) Delete(ctx context.Context, cid string) (Deleted, error) {
	var d Deleted
	err := a.work(ctx, "delete-snapshot "+cid, func(ctx context.Context) error {
		return a.deleteInto(ctx, &d, cid)
	})
	return d, err
}

// DeleteAll deletes the selected snapshots whose CIDs are known, going on past failures, and
// says which it deleted. Unresolved entries stay, and those that were taken in holds.
func (a *Agent) DeleteAll(ctx context.Context, which Selection) (Deleted, error) {
	var d Deleted
	err := a.work(ctx, "delete-snapshots", func(ctx context.Context) error {
		selected, err := a.Select(which)
		if err != nil {
			return err
		}
		var errs []error
		for _, s := range selected {
			switch {
			case s.State == SnapshotUnresolved:
			case s.Held:
				d.Held = append(d.Held, s.CID)
			default:
				errs = append(errs, a.deleteInto(ctx, &d, s.CID))
			}
		}
		return errors.Join(errs...)
	})
	return d, err
}

// deleteOne deletes a snapshot, for whoever holds the VM and does not care whether it was
// there. Errors: *UnknownSnapshotError; *RefusedError without a CPI; *BusyError while its
// run has not ended; with any other the entry is marked as deleting, and the agent tries it
// again by itself, unless not even that could be recorded.
func (a *Agent) deleteOne(ctx context.Context, cid string) error {
	return a.deleteInto(ctx, &Deleted{}, cid)
}

// deleteInto is deleteOne that says what came of it.
func (a *Agent) deleteInto(ctx context.Context, d *Deleted, cid string) error {
	s, err := a.catalogue.withCID(cid)
	if err != nil {
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
	if err := a.refuseUnended(s.RunID); err != nil {
		return err
	}
	failpoint.Hit("delete-unrecorded")
	if err := a.editSnapshot(cid, func(s *Snapshot) { s.State = SnapshotDeleting }); err != nil {
		return fmt.Errorf("cannot record that %q is to be deleted: %w", cid, err)
	}
	failpoint.Hit("delete-recorded")
	gone, err := a.tellToDelete(ctx, cid)
	if err != nil {
		return fmt.Errorf("cannot delete snapshot %q: %w", cid, err)
	}
	failpoint.Hit("delete-done")
	if err := a.forget(s.Key()); err != nil {
		return fmt.Errorf("cannot record that %q was deleted: %w", cid, err)
	}
	failpoint.Hit("delete-forgotten")
	d.CIDs = append(d.CIDs, cid)
	if gone {
		d.Gone = append(d.Gone, cid)
	}
	return nil
}

// tellToDelete has the CPI delete a snapshot. One that is not there any more is deleted.
func (a *Agent) tellToDelete(ctx context.Context, cid string) (gone bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.Settings.Budgets.Snapshot)
	defer cancel()
	err = a.CPI.DeleteSnapshot(ctx, cid)
	switch {
	case err == nil:
		a.Log.Info("snapshot deleted", "snapshot", cid)
	case a.Settings.saysGone(err, cid):
		a.Log.Warn("snapshot dropped from the catalogue: it was not there any more", "snapshot", cid, "cpi", err)
		return true, nil
	}
	return false, err
}

// refuseUnended refuses to delete or verify what a run took that has not ended: it records
// its snapshots once more in the end.
func (a *Agent) refuseUnended(id string) error {
	a.mu.Lock()
	run, ok := a.runs[id]
	a.mu.Unlock()
	if !ok {
		return nil
	}
	if _, ended := run.Report(); ended {
		return nil
	}
	phase, since := run.Progress()
	return &BusyError{Work: "run " + id + ", which took the snapshot", Phase: phase, Since: since}
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
func (a *Agent) forget(key SnapshotKey) error {
	a.edit.Lock()
	defer a.edit.Unlock()
	return a.write(Change{Gone: []SnapshotKey{key}})
}
