package agent

import (
	"os"
	"slices"
	"strings"
	"time"

	"github.com/quiesced/quiesced/cpi"
)

// Journal keeps the records of runs, and the catalogue. What Write was given is durable
// when it returns nil, and nothing of it is when it does not.
type Journal interface {
	Write(Change) error
	Get(id string) (Record, bool, error)
	All() ([]Record, error) // oldest first
	Snapshots() ([]Snapshot, error)
	ID() string // random, made with the journal: another one knows of other snapshots
}

// Change is what is written at once.
type Change struct {
	Records   []Record      // new, or in place of those with their ids
	Snapshots []Snapshot    // new, or in place of those with their keys
	Gone      []SnapshotKey // forgotten; none of them is among Snapshots
}

// Empty says that there is nothing to write.
func (c Change) Empty() bool { return len(c.Records)+len(c.Snapshots)+len(c.Gone) == 0 }

// then is this change with a later one after it.
func (c Change) then(later Change) Change {
	replaced := func(key SnapshotKey) bool {
		return slices.Contains(later.Gone, key) || slices.ContainsFunc(later.Snapshots, func(s Snapshot) bool { return s.Key() == key })
	}
	var whole Change
	for _, r := range c.Records {
		if _, again := later.record(r.Request.ID); !again {
			whole.Records = append(whole.Records, r)
		}
	}
	for _, s := range c.Snapshots {
		if !replaced(s.Key()) {
			whole.Snapshots = append(whole.Snapshots, s)
		}
	}
	for _, key := range c.Gone {
		if !replaced(key) {
			whole.Gone = append(whole.Gone, key)
		}
	}
	whole.Records = append(whole.Records, later.Records...)
	whole.Snapshots = append(whole.Snapshots, later.Snapshots...)
	whole.Gone = append(whole.Gone, later.Gone...)
	return whole
}

// record is the record of a run, and whether the change has one.
func (c Change) record(id string) (Record, bool) {
	for _, r := range c.Records {
		if r.Request.ID == id {
			return r, true
		}
	}
	return Record{}, false
}

// Record is all that is known of one run but its snapshots. A record without a report
// belongs to a run that is under way or was cut off.
type Record struct {
	Request Request
	Plan    Plan
	Boot    string // boot id of the kernel under which its processes ran
	Started time.Time
	Phase   Phase
	Calls   []Call
	Held    *Held      // what is held of the jobs, nil for nothing
	Restore *HeldDisk  // of a restore: what was held of the disk last; nil for other runs
	Moved   string     // why the jobs were not at rest until the point in time, "" if they were
	Undone  string     // what failed in setting jobs going that go again
	Notes   []string   // for the report
	Freeze  *FreezeEnd // how the freeze ended, when that came before the run's end
	Report  *Report
}

// snapshot is the catalogue's entry of what the run took of a disk.
func (r *Record) snapshot(d DiskResult, report Report) Snapshot {
	s := Snapshot{
		CID: d.SnapshotCID, DiskCID: d.CID, State: SnapshotKnown, Clean: d.Clean, Asked: report.Asked, Level: report.Reached,
		Trigger: report.Trigger, Held: r.Request.Lease != 0, RunID: report.ID, By: report.By, Created: r.Started,
		DiskSize: r.Plan.Sizes[d.CID], Note: report.Reason,
	}
	if d.Unresolved {
		s.State, s.Note = SnapshotUnresolved, d.Error
	}
	return s
}

// setHeld takes over what is held now.
func (r *Record) setHeld(h Held) {
	r.Held = &h
	if h.Empty() {
		r.Held = nil
	}
	if h.Disk != nil {
		r.Restore = h.Disk
	}
}

// FreezeEnd is how a run's freeze ended.
type FreezeEnd struct {
	Broken string // why it did not last until every point in time was fixed, "" if it did
	Thaws  []Thaw
	Phases map[Phase]time.Duration // up to then
}

// Call is one CPI process that takes one disk's snapshot.
type Call struct {
	DiskCID string
	Dir     string // holds what it prints
	Process cpi.Process
}

// ofBoot is a process of a boot, none where that is over: its pid may be anybody's now.
func ofBoot(boot string, p cpi.Process) cpi.Process {
	if boot != bootID() {
		return cpi.Process{}
	}
	return p
}

// bootID distinguishes this boot's pids from another's.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
