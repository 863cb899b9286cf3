package agent

import (
	"os"
	"strings"
	"time"

	"github.com/quiesced/quiesced/cpi"
)

// Journal keeps records. What Put was given is durable when it returns nil.
type Journal interface {
	Put(Record) error
	Get(id string) (Record, bool, error)
	All() ([]Record, error) // oldest first
}

// Record is all that is known of one run. A record without a report belongs to
// a run that is under way or was cut off.
type Record struct {
	Request   Request
	Plan      Plan
	Boot      string // boot id of the kernel under which its processes ran
	Started   time.Time
	Phase     Phase
	Calls     []Call
	Held      *Held      // what is held of the jobs, nil for nothing
	Moved     string     // why the jobs were not at rest until the point in time, "" if they were
	Undone    string     // what failed in setting jobs going that go again
	Notes     []string   // for the report
	Freeze    *FreezeEnd // how the freeze ended, when that came before the run's end
	Snapshots []Snapshot // of this run that have not been deleted
	Report    *Report
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

// bootID distinguishes this boot's pids from another's.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
