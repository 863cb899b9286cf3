package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quiesced/quiesced/quiesce"
)

// Copies keeps copies of the catalogue on the persistent disks, where they outlive the
// state directory. Its methods take no longer than a little after the end of their context,
// whatever the disks do.
type Copies interface {
	// Read reads the copy at a place. Errors: ErrNoCopy, ErrBadCopy; after others nobody
	// knows what is there.
	Read(context.Context, Place) (Copy, error)
	// Write replaces the copy. What is there is kept under its name with the word aside
	// added, unless that is "".
	Write(ctx context.Context, at Place, c Copy, aside string) error
	// Stuck is an error while something that reads or writes may go on, though it was
	// ended: nothing must be frozen meanwhile. nil for nothing.
	Stuck() error
}

var (
	// ErrNoCopy is returned where there is no copy of the catalogue.
	ErrNoCopy = errors.New("there is no copy of the catalogue")

	// ErrBadCopy is returned for a copy that is damaged, or from a version that is not known.
	ErrBadCopy = errors.New("the copy cannot be read")
)

// Copy is the catalogue as it was when it was copied.
type Copy struct {
	Journal   string // the id of the journal from which it is
	Instance  Instance
	Snapshots []Snapshot
}

// Place is where a disk is mounted.
type Place struct {
	Mount   string
	MountID uint64 // as statx(2) gives it
}

const (
	copyLimit   = 30 * time.Second // for reading or writing one copy
	copyLook    = 10 * time.Second // after which it is looked again where the disks are
	copyAgain   = time.Minute      // after which it is tried again what failed
	copyAtStart = 5 * time.Second  // for reading all copies before the first request
	copyAtEnd   = 2 * time.Second  // for writing them when the daemon ends: the VM may be deleted next
)

// copied is a disk's copy.
type copied struct {
	disk    string // CID
	place   Place
	read    bool      // what was there is known, and adopted
	none    bool      // nothing was there, and nothing was written yet
	aside   string    // under which word what is there is to be kept, "" for none
	changes int       // of the catalogue that is there, -1 for another one
	written time.Time // zero for never, by this daemon
	err     error     // of the last try
	next    time.Time // not before is it tried again
}

// copier is what is known of the copies.
type copier struct {
	mu     sync.Mutex
	disks  map[string]*copied // guarded by mu, as is what they point to, by CID
	failed int                // guarded by mu: how often reading or writing failed
	looked time.Time          // when it was looked where the disks are; the run loop's own
	seen   int                // of the catalogue's changes, then; the run loop's own
}

// CopyStatus is what a status tells of a disk's copy.
type CopyStatus struct {
	DiskCID string
	Mount   string
	Written time.Time // zero for never, by this daemon
	Current bool      // it has what the catalogue has
	Err     error     // why not
}

// copyOn keeps the copies as the catalogue is, until ctx ends, and then once more.
func (a *Agent) copyOn(ctx context.Context) {
	if a.Copies == nil {
		return
	}
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), copyAtEnd)
			defer cancel()
			a.copyOut(ctx)
			return
		case <-tick.C:
		case <-a.changed:
		}
		a.copyOut(ctx)
	}
}

// copyOut writes the copies that are not as the catalogue is, while nothing else wants the
// VM, and so while nothing is frozen.
func (a *Agent) copyOut(ctx context.Context) {
	c := &a.copier
	if now, changes := time.Now(), a.catalogue.changes(); now.Sub(c.looked) >= copyLook || changes != c.seen {
		a.findDisks()
		c.looked, c.seen = now, changes
	}
	due := c.due(a.catalogue.changes(), time.Now())
	_, yielded := a.yielded()
	if len(due) == 0 || yielded || len(a.Stuck()) > 0 || a.Copies.Stuck() != nil {
		return
	}
	_ = a.idleWork(ctx, "copying the catalogue to the disks", func(ctx context.Context) error {
		for _, one := range due {
			a.copyTo(ctx, one)
		}
		return nil
	})
}

// due are the disks whose copies are to be read or written.
func (c *copier) due(changes int, now time.Time) []*copied {
	c.mu.Lock()
	defer c.mu.Unlock()
	var due []*copied
	for _, one := range c.disks {
		if (!one.read || one.changes != changes) && !now.Before(one.next) {
			due = append(due, one)
		}
	}
	return due
}

// findDisks looks which disks are there, and where. One that is mounted anew is read anew.
func (a *Agent) findDisks() {
	places := a.places()
	c := &a.copier
	c.mu.Lock()
	defer c.mu.Unlock()
	for cid, one := range c.disks {
		if places[cid] != one.place {
			delete(c.disks, cid)
		}
	}
	for cid, at := range places {
		if c.disks == nil {
			c.disks = map[string]*copied{}
		}
		if c.disks[cid] == nil {
			c.disks[cid] = &copied{disk: cid, place: at, changes: -1}
		}
	}
}

// places are where the disks are mounted, by CID.
func (a *Agent) places() map[string]Place {
	disks, err := a.Settings.attached()
	if err != nil {
		return nil // a disk is being migrated
	}
	survey, err := a.System.Survey()
	if err != nil {
		return nil
	}
	places := map[string]Place{}
	for _, d := range disks {
		on, err := survey.Filesystems([]quiesce.Disk{d})
		if err != nil {
			continue // it is not mounted
		}
		for _, f := range on.Filesystems {
			if hasCopy(d, f) {
				places[d.CID] = Place{Mount: f.Path, MountID: f.MountID}
				break
			}
		}
	}
	return places
}

// hasCopy says whether a disk's copy belongs on a filesystem of it. It does where that is
// read-only, as ext4 is after an error: then it is told of.
func hasCopy(d quiesce.Disk, f quiesce.Filesystem) bool {
	f.ReadOnly = false
	return (f.Configured || len(d.Mounts) == 0 && !f.Root) && f.PassedOver() == "" && f.Writable() == nil && !strings.HasPrefix(f.Path, "/proc/")
}

// copyTo brings one disk's copy to what the catalogue is.
func (a *Agent) copyTo(ctx context.Context, one *copied) {
	ctx, cancel := context.WithTimeoutCause(ctx, copyLimit, errors.New("it takes too long"))
	defer cancel()
	err := a.readCopy(ctx, one)
	changes, all := a.catalogue.changes(), a.catalogue.list()
	nothing := one.none && len(all) == 0 // and no file is made to say so
	if err == nil && !nothing {
		err = a.Copies.Write(ctx, one.place, Copy{Journal: a.Journal.ID(), Instance: a.Settings.Instance, Snapshots: all}, one.aside)
	}
	if (errors.Is(err, ErrMadeWay) || errors.Is(err, ErrStopping)) && a.Copies.Stuck() == nil {
		return // it was not given its time
	}
	a.copier.mu.Lock()
	defer a.copier.mu.Unlock()
	if err != nil {
		a.copyFailed(one, err)
		return
	}
	one.changes, one.err, one.aside = changes, nil, ""
	if !nothing {
		one.none, one.written = false, time.Now()
	}
}

// copyFailed needs the copier's mu held. It says so once.
func (a *Agent) copyFailed(one *copied, err error) {
	if one.err == nil || one.err.Error() != err.Error() {
		a.Log.Warn("the catalogue's copy is not as the catalogue is; trying again", "disk", one.disk, "error", err)
	}
	one.err, one.next = err, time.Now().Add(copyAgain)
	a.copier.failed++
}

// readCopy reads a disk's copy once, before it is replaced, and adopts what is in it. One
// that is of no use is kept aside.
func (a *Agent) readCopy(ctx context.Context, one *copied) error {
	if one.read {
		return nil
	}
	found, err := a.Copies.Read(ctx, one.place)
	aside, none := "", errors.Is(err, ErrNoCopy)
	switch {
	case none:
	case errors.Is(err, ErrBadCopy):
		aside = "unreadable"
		a.Log.Warn("a copy of the catalogue is of no use", "disk", one.disk, "error", err)
	case err != nil:
		return err
	case !a.Settings.Instance.same(found.Instance):
		aside = "of-another-instance"
		a.Log.Warn("a disk has the catalogue of another instance", "disk", one.disk, "instance", found.Instance, "snapshots", len(found.Snapshots))
	case found.Journal != a.Journal.ID():
		if err := a.adoptCopy(found, one); err != nil {
			return err
		}
	}
	a.copier.mu.Lock()
	defer a.copier.mu.Unlock()
	one.read, one.none, one.aside = true, none, aside
	return nil
}

// adoptCopy takes over what an earlier journal of this instance knew, and this one does not.
func (a *Agent) adoptCopy(found Copy, one *copied) error {
	a.edit.Lock()
	defer a.edit.Unlock()
	var fresh []Snapshot
	for _, s := range found.Snapshots {
		if a.catalogue.knows(s) {
			continue
		}
		s.Note = strings.TrimPrefix(s.Note+"; found in the catalogue's copy on disk "+one.disk, "; ")
		fresh = append(fresh, s)
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := a.write(Change{Snapshots: fresh}); err != nil {
		return fmt.Errorf("cannot record the snapshots that were found on disk %q: %w", one.disk, err)
	}
	a.Log.Warn("snapshots that the journal did not know were found on a disk", "disk", one.disk, "snapshots", len(fresh))
	return nil
}

// FindCopies adopts what an earlier journal knew, before the first request: so no id is
// taken for a new one. What takes too long is read later.
func (a *Agent) FindCopies(ctx context.Context) {
	if a.Copies == nil {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, copyAtStart, errors.New("it takes too long"))
	defer cancel()
	a.findDisks()
	for _, one := range a.copier.due(-1, time.Now()) {
		if err := a.readCopy(ctx, one); err != nil {
			a.copier.mu.Lock()
			a.copyFailed(one, err)
			a.copier.mu.Unlock()
		}
	}
}

// copyStatus is how the copies are.
func (a *Agent) copyStatus() (all []CopyStatus, failed int) {
	changes := a.catalogue.changes()
	a.copier.mu.Lock()
	defer a.copier.mu.Unlock()
	for _, one := range a.copier.disks {
		all = append(all, CopyStatus{
			DiskCID: one.disk, Mount: one.place.Mount, Written: one.written, Current: one.read && one.changes == changes, Err: one.err,
		})
	}
	slices.SortFunc(all, func(a, b CopyStatus) int { return strings.Compare(a.DiskCID, b.DiskCID) })
	return all, a.copier.failed
}

// refuseCopying refuses what would freeze a filesystem while something of ours may still
// write to one.
func (a *Agent) refuseCopying(r Request) error {
	if a.Copies == nil || r.Level == LevelNone {
		return nil
	}
	if err := a.Copies.Stuck(); err != nil {
		return &RefusedError{Err: err}
	}
	return nil
}
