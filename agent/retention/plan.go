package retention

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Entry is a snapshot as far as retention looks at it.
type Entry struct {
	ID      string
	Disk    string
	Run     string // that took it; the snapshots of one go together
	Trigger string // by which it has a policy
	Time    time.Time
	Clean   bool
	Apart   string // why it is not to be decided on, "" if it is
}

// Decision is what is to become of a snapshot.
type Decision struct {
	ID   string
	Keep bool
	Why  string
}

// candidate is a snapshot that is decided on.
type candidate struct {
	*Entry
	at   int    // among the entries
	kept string // by what, "" if it goes
	gone string // why it goes, where that is not for want of a count
}

func (c *candidate) keep(why string) {
	if c.kept != "" {
		why = c.kept + ", " + why
	}
	c.kept = why
}

// Plan decides on each of the entries, in their order.
func Plan(p Policies, entries []Entry, now time.Time) []Decision {
	all := candidates(entries)
	come := slices.DeleteFunc(slices.Clone(all), func(c *candidate) bool { return c.Time.After(now) })
	slices.SortFunc(come, newerFirst)
	for _, group := range grouped(p, come) {
		policy, _ := p.of(group[0].Trigger)
		policy.mark(group, now)
	}
	markClean(come)
	for _, c := range all {
		if c.Time.After(now) {
			c.keep("its time is yet to come: the clock was ahead")
		}
	}
	markRuns(all)
	return decisions(entries, all)
}

func candidates(entries []Entry) []*candidate {
	found, all := make([]candidate, 0, len(entries)), make([]*candidate, 0, len(entries))
	for i := range entries {
		if entries[i].Apart == "" {
			found = append(found, candidate{Entry: &entries[i], at: i})
			all = append(all, &found[len(found)-1])
		}
	}
	return all
}

// newerFirst orders by time. What was taken at the same time is ordered by its id, so
// that it does not matter how the entries are given.
func newerFirst(a, b *candidate) int {
	return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(b.ID, a.ID))
}

// grouped are those that are counted together: of a disk, and under a policy.
func grouped(p Policies, all []*candidate) map[[2]string][]*candidate {
	groups := map[[2]string][]*candidate{}
	for _, c := range all {
		_, owner := p.of(c.Trigger)
		groups[[2]string{c.Disk, owner}] = append(groups[[2]string{c.Disk, owner}], c)
	}
	return groups
}

// markClean keeps the newest clean one of each disk. What is kept apart is not that: it
// is somebody else's to delete, or may not be there.
func markClean(all []*candidate) {
	seen := map[string]bool{}
	for _, c := range all {
		if c.Clean && !seen[c.Disk] {
			seen[c.Disk] = true
			c.keep("the newest clean one")
		}
	}
}

// markRuns keeps all of a run of which one is kept.
func markRuns(all []*candidate) {
	kept := map[string]*candidate{}
	for _, c := range all {
		if c.kept != "" && c.Run != "" {
			kept[c.Run] = c
		}
	}
	for _, c := range all {
		if with, ok := kept[c.Run]; ok && c.kept == "" {
			c.keep(fmt.Sprintf("goes with its run's snapshot of disk %q", with.Disk))
		}
	}
}

func decisions(entries []Entry, all []*candidate) []Decision {
	made := make([]Decision, len(entries))
	for i, e := range entries {
		made[i] = Decision{ID: e.ID, Keep: true, Why: e.Apart}
	}
	for _, c := range all {
		made[c.at] = Decision{ID: c.ID, Keep: c.kept != "", Why: cmp.Or(c.kept, c.gone, "no count keeps it")}
	}
	return made
}
