package agent

import (
	"slices"
)

// write makes a change durable, with all that the journal did not take before, and then
// known. It needs edit held.
func (a *Agent) write(c Change) error {
	a.mu.Lock()
	whole := a.unsaved.then(c)
	a.mu.Unlock()
	if err := a.Journal.Write(whole); err != nil {
		return a.journalFailed(err)
	}
	a.mu.Lock()
	a.unsaved = Change{}
	a.mu.Unlock()
	a.know(c)
	return nil
}

// know makes a change known to whoever asks.
func (a *Agent) know(c Change) {
	a.catalogue.apply(c)
	select {
	case a.changed <- struct{}{}:
	default:
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range c.Records {
		if r.Report != nil && (a.last == nil || a.last.ID == r.Report.ID || a.last.Ended.Before(r.Report.Ended)) {
			a.last = r.Report
		}
		if r.Report.exchanged() && (a.restored == nil || a.restored.Ended.Before(r.Report.Ended)) {
			a.restored = r.Report
		}
	}
	a.noteVerified(c.Snapshots)
}

// noteVerified remembers when a snapshot was last found good. It needs mu held.
func (a *Agent) noteVerified(snapshots []Snapshot) {
	for _, s := range snapshots {
		if s.Verified != nil && s.Verified.OK && s.Verified.Time.After(a.lastGood) {
			a.lastGood = s.Verified.Time
		}
	}
}

// keepUnsaved holds a change that the journal did not take: it is known, and written with
// whatever is written next. What the CPI printed stays on disk meanwhile, so that even a
// crash now loses no CID. It needs edit held.
func (a *Agent) keepUnsaved(c Change) {
	a.mu.Lock()
	a.unsaved = a.unsaved.then(c)
	a.mu.Unlock()
	a.know(c)
}

// retryUnsaved tries what the journal did not take. It holds the VM meanwhile: a freeze
// must not begin while a disk is written.
func (a *Agent) retryUnsaved() {
	ids, some := a.waiting()
	if !some || !a.take(&holder{work: "recording the runs before"}) {
		return
	}
	defer a.release()
	a.edit.Lock()
	defer a.edit.Unlock()
	if a.write(Change{}) == nil {
		a.Log.Info("recorded what could not be recorded before", "runs", ids)
	}
}

// waiting names the runs that the journal did not take, and says whether there is
// anything that it did not.
func (a *Agent) waiting() (ids []string, some bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.unsaved.Records {
		ids = append(ids, r.Request.ID)
	}
	slices.Sort(ids)
	return ids, !a.unsaved.Empty()
}

// recordOf is the newest record of a run.
func (a *Agent) recordOf(id string) (Record, bool, error) {
	a.mu.Lock()
	r, ok := a.unsaved.record(id)
	a.mu.Unlock()
	if ok {
		return r, true, nil
	}
	r, ok, err := a.Journal.Get(id)
	if err != nil {
		return r, ok, a.journalFailed(err)
	}
	return r, ok, nil
}

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
		if newer, ok := a.unsaved.record(r.Request.ID); ok {
			all[i] = newer
		}
	}
	return all, nil
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
