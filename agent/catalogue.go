package agent

import (
	"fmt"
	"slices"
	"sync"
)

// catalogue is every snapshot that is known, in memory. What is in it is durable, but for
// what the journal would not take yet. Its lists are the oldest first.
type catalogue struct {
	mu    sync.Mutex
	all   []*Snapshot               // guarded by mu, in their order; what they point to never changes
	byKey map[SnapshotKey]*Snapshot // guarded by mu
	byCID map[string]*Snapshot      // guarded by mu: those that have a CID
	count int                       // guarded by mu: of changes
}

func newCatalogue(all []Snapshot) *catalogue {
	c := &catalogue{
		all:   make([]*Snapshot, 0, len(all)),
		byKey: make(map[SnapshotKey]*Snapshot, len(all)),
		byCID: make(map[string]*Snapshot, len(all)),
	}
	for i := range all {
		s := &all[i]
		c.all = append(c.all, s)
		c.index(s)
	}
	slices.SortFunc(c.all, byCreation)
	return c
}

// index needs mu held, once others know of the catalogue.
func (c *catalogue) index(s *Snapshot) {
	c.byKey[s.Key()] = s
	if s.CID != "" {
		c.byCID[s.CID] = s
	}
}

// apply makes a change to the catalogue.
func (c *catalogue) apply(change Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(change.Gone)+len(change.Snapshots) > 0 {
		c.count++
	}
	for _, key := range change.Gone {
		c.remove(key)
	}
	for _, s := range change.Snapshots {
		c.remove(s.Key())
		at, _ := slices.BinarySearchFunc(c.all, &s, byCreation)
		c.all = slices.Insert(c.all, at, &s)
		c.index(&s)
	}
}

// remove needs mu held.
func (c *catalogue) remove(key SnapshotKey) {
	s, ok := c.byKey[key]
	if !ok {
		return
	}
	delete(c.byKey, key)
	if c.byCID[s.CID] == s {
		delete(c.byCID, s.CID)
	}
	if at, found := slices.BinarySearchFunc(c.all, s, byCreation); found {
		c.all = slices.Delete(c.all, at, at+1)
	}
}

func (c *catalogue) list() []Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Snapshot, 0, len(c.all))
	for _, s := range c.all {
		all = append(all, *s)
	}
	return all
}

// changes is how often the catalogue was changed.
func (c *catalogue) changes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// knows says whether a snapshot, or another with its CID, is in the catalogue.
func (c *catalogue) knows(s Snapshot) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byKey[s.Key()] != nil || c.byCID[s.CID] != nil
}

func (c *catalogue) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.all)
}

// withCID is the snapshot with a CID. No CID is nobody's.
func (c *catalogue) withCID(cid string) (Snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.byCID[cid]
	if !ok {
		return Snapshot{}, &UnknownSnapshotError{CID: cid}
	}
	return *s, nil
}

// ofRun is what one run took.
func (c *catalogue) ofRun(id string) []Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	var taken []Snapshot
	for _, s := range c.all {
		if s.RunID == id {
			taken = append(taken, *s)
		}
	}
	return taken
}

// owner is the snapshot of another run than one that has a CID, in words, "" for none.
func (c *catalogue) owner(cid, but string) string {
	s, err := c.withCID(cid)
	switch {
	case err != nil || s.RunID == but && but != "":
		return ""
	case s.RunID == "":
		return fmt.Sprintf("a snapshot of disk %q that no run of this daemon took", s.DiskCID)
	}
	return fmt.Sprintf("the snapshot of disk %q in run %s", s.DiskCID, s.RunID)
}

// Snapshots is the catalogue, oldest first. It is read from memory, and there is no
// error.
func (a *Agent) Snapshots() ([]Snapshot, error) { return a.catalogue.list(), nil }
