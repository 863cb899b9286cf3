package agent

import "time"

// Status is what the daemon is doing.
type Status struct {
	Enabled      bool
	Instance     Instance
	Work         string // "" when idle
	Phase        Phase
	Since        time.Time // when the work, or its phase, began
	Last         *Report   // the newest run that ended
	Restored     *Report   // the newest restore that left another disk in place, nil for none
	Snapshots    int
	Redeletes    Redeletes
	Copies       []CopyStatus      // of the catalogue
	CopiesFailed int               // how often one could not be read or written, since the daemon began
	Unsaved      []string          // ids of runs that could not be recorded yet
	Stuck        []string          // what could not be thawed
	Doing        map[string]string // what the run does to each job and service, or did last
	NotGoing     []string          // of the jobs what could not be set going
	Scheduled    []Scheduled
	Retention    *RetentionCounts    // nil where no policy is configured
	Verification *VerificationStatus // under way, or whose disk is not removed yet; nil for none
	LastVerified time.Time           // when a snapshot was last found good, zero for never

	Yielded time.Time // since when the director has the jobs to itself, zero if it has not
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
	s.Unsaved, _ = a.waiting()
	s.Snapshots = a.catalogue.len()
	s.Copies, s.CopiesFailed = a.copyStatus()
	s.Verification = a.Verification()
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Last, s.Restored, s.Redeletes, s.LastVerified = a.last, a.restored, a.redeletes, a.lastGood
	if !a.Settings.Keep.Empty() {
		counts := a.retired
		s.Retention = &counts
	}
	return s, nil
}

// Now is the work that holds the VM, "" for none, its phase where it is a run, and since when
// that is so. Work that makes way for any other is none.
func (a *Agent) Now() (work string, phase Phase, since time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.holder
	if h == nil || h.makeWay != nil {
		return "", "", time.Time{}
	}
	if h.run == nil {
		return h.work, "", h.since
	}
	phase, since = h.run.Progress()
	if since.IsZero() { // it has no phase yet
		since = h.since
	}
	return h.work, phase, since
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
