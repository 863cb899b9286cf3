package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// records are all runs that are known, oldest first, with those that the
// journal has not taken yet.
func (a *Agent) records() ([]Record, error) {
	all, err := a.Journal.All()
	if err != nil {
		return nil, a.journalFailed(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, r := range all {
		if newer, ok := a.unsaved[r.Request.ID]; ok {
			all[i] = newer
		}
	}
	return all, nil
}

// Snapshots is the catalogue, oldest first.
func (a *Agent) Snapshots() ([]Snapshot, error) {
	all, err := a.records()
	if err != nil {
		return nil, err
	}
	var found []Snapshot
	for _, r := range all {
		found = append(found, r.Snapshots...)
	}
	return found, nil
}

// Reports are the runs that ended, newest first, at most limit of them (all
// for 0).
func (a *Agent) Reports(limit int) ([]Report, error) {
	all, err := a.records()
	if err != nil {
		return nil, err
	}
	var found []Report
	for _, r := range slices.Backward(all) {
		if r.Report != nil && (limit == 0 || len(found) < limit) {
			found = append(found, *r.Report)
		}
	}
	return found, nil
}

// Delete has the CPI delete a snapshot and drops it from the catalogue. The
// intent is durable first; if the CPI fails the entry stays, marked as deleting.
// Errors: *UnknownSnapshotError, *BusyError, *cpi.Error and its kin.
func (a *Agent) Delete(ctx context.Context, cid string) error {
	return a.work(ctx, "delete-snapshot "+cid, func(ctx context.Context) error {
		return a.delete(ctx, cid)
	})
}

// DeleteAll deletes every snapshot whose CID is known, going on past failures,
// and says which it deleted. Unresolved entries stay.
func (a *Agent) DeleteAll(ctx context.Context) ([]string, error) {
	deleted := []string{}
	err := a.work(ctx, "delete-snapshots", func(ctx context.Context) error {
		all, err := a.Snapshots()
		errs := []error{err}
		for _, s := range all {
			if s.State == SnapshotUnresolved {
				continue
			}
			err := a.delete(ctx, s.CID)
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

func (a *Agent) delete(ctx context.Context, cid string) error {
	record, at, err := a.find(cid)
	if err != nil {
		return err
	}
	if a.CPI == nil {
		return refuse("", "no CPI is configured (cpi.path)")
	}
	record.Snapshots[at].State = SnapshotDeleting
	if err := a.put(record); err != nil {
		return fmt.Errorf("cannot record that %q is to be deleted: %w", cid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, a.Settings.Budgets.Snapshot)
	defer cancel()
	if err := a.CPI.DeleteSnapshot(ctx, cid); err != nil {
		return fmt.Errorf("cannot delete snapshot %q: %w", cid, err)
	}
	record.Snapshots = slices.Delete(record.Snapshots, at, at+1)
	if err := a.put(record); err != nil {
		return fmt.Errorf("cannot record that %q was deleted: %w", cid, err)
	}
	a.Log.Info("snapshot deleted", "snapshot", cid)
	return nil
}

// find is the record of the run that took a snapshot, and its place there.
func (a *Agent) find(cid string) (Record, int, error) {
	all, err := a.records()
	if err != nil {
		return Record{}, 0, err
	}
	for _, r := range all {
		at := slices.IndexFunc(r.Snapshots, func(s Snapshot) bool { return cid != "" && s.CID == cid })
		if at >= 0 {
			return r, at, nil
		}
	}
	return Record{}, 0, &UnknownSnapshotError{CID: cid}
}

// Status is what the daemon is doing.
type Status struct {
	Enabled   bool
	Instance  Instance
	Work      string // "" when idle
	Phase     Phase
	Since     time.Time // when the work, or its phase, began
	Last      *Report   // the newest run that ended
	Snapshots int
	Unsaved   []string          // ids of runs that could not be recorded yet
	Stuck     []string          // what could not be thawed
	Doing     map[string]string // what the run does to each job and service, or did last
	NotGoing  []string          // of the jobs what could not be set going
	Scheduled []Scheduled
	Yielded   time.Time // since when the director has the jobs to itself, zero if it has not
}

// Status answers at once, whatever the daemon is doing.
func (a *Agent) Status() (Status, error) {
	s := Status{Enabled: a.Settings.Enabled, Instance: a.Settings.Instance, Stuck: a.Stuck()}
	s.Work, s.Phase, s.Since = a.Now()
	s.Doing = a.Doing()
	s.NotGoing = a.NotGoing()
	s.Yielded, _ = a.yielded()
	if a.Timekeeper != nil {
		s.Scheduled = a.Timekeeper.Scheduled()
	}
	a.mu.Lock()
	for id := range a.unsaved {
		s.Unsaved = append(s.Unsaved, id)
	}
	a.mu.Unlock()
	slices.Sort(s.Unsaved)
	h, err := a.summary()
	if err != nil {
		return s, err
	}
	s.Last, s.Snapshots = h.last, h.snapshots
	return s, nil
}

// Now is the work that holds the VM, "" for none, its phase where it is a run,
// and since when that is so.
func (a *Agent) Now() (work string, phase Phase, since time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.holder == nil {
		return "", "", time.Time{}
	}
	work, since = a.holder.work, a.holder.since
	if a.holder.run != nil {
		phase, since = a.holder.run.Progress()
	}
	return work, phase, since
}

// Doing is what the work that holds the VM does to each job and service, or did
// last, by name.
func (a *Agent) Doing() map[string]string {
	if run := a.holderRun(); run != nil {
		return run.Doing()
	}
	return nil
}

// Stuck says what could not be thawed yet.
func (a *Agent) Stuck() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []string
	for _, r := range a.stuck {
		all = append(all, r.Err.Error())
	}
	if a.unread != nil {
		all = append(all, a.unread.Error())
	}
	return all
}

// history is what a status tells of the records. It is kept between changes: a
// status may be asked for ten times a second.
type history struct {
	last      *Report
	snapshots int
}

func (a *Agent) summary() (history, error) {
	a.mu.Lock()
	known, changes := a.history, a.changes
	a.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	all, err := a.records()
	if err != nil {
		return history{}, err
	}
	var h history
	for _, r := range all {
		h.snapshots += len(r.Snapshots)
		if r.Report != nil && (h.last == nil || h.last.Ended.Before(r.Report.Ended)) {
			h.last = r.Report
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.changes == changes {
		a.history = &h
	}
	return h, nil
}
