package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce"
	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/remount"
)

// RestorePlan is what a restore is going to do. Of its Plan the actions are those of the
// restore, in their order.
type RestorePlan struct {
	Plan
	Snapshot Snapshot
	Disk     quiesce.Disk
	Point    string   // where the disk is mounted, without links
	Mounts   []string // all its mount points
	SizeMiB  int64    // of the disk to be made
	Warnings []string // what speaks against it

	// Director says that the disk is a director's: a new one is made from the snapshot,
	// and the director is to be told to take it, by Steps.
	Director   bool
	Steps      []string
	CannotMake error // why no disk can be made here, nil if it can; of a director's alone

	inventory *Inventory
}

// PlanRestore says what a restore would do, and touches nothing. Errors: *RefusedError,
// *UnknownSnapshotError.
func (a *Agent) PlanRestore(ctx context.Context, asked RestoreRequest) (*RestorePlan, error) {
	ctx, cancel := context.WithTimeout(ctx, a.Settings.Budgets.PreSync) // the CPI is asked what it can do
	defer cancel()
	p := &RestorePlan{Director: a.Settings.Attached != nil}
	for _, step := range []func(context.Context, *RestorePlan, RestoreRequest) error{
		a.chooseSnapshot, a.chooseDisk, a.checkRestoring, a.lookAtJobs,
	} {
		if err := step(ctx, p, asked); err != nil {
			return nil, err
		}
		if p.Director && p.Disk.CID != "" {
			a.planForDirector(ctx, p)
			return p, nil
		}
	}
	p.listRestore(a.Settings.Budgets)
	return p, nil
}

// chooseSnapshot finds the snapshot, and says what speaks against it.
func (a *Agent) chooseSnapshot(_ context.Context, p *RestorePlan, asked RestoreRequest) error {
	var err error
	if p.Snapshot, err = a.catalogue.withCID(asked.CID); err != nil {
		return err
	}
	s := p.Snapshot
	switch v := s.Verified; {
	case s.State != SnapshotKnown:
		return refuse("cid", "snapshot %q is being deleted", s.CID)
	case v == nil:
		p.Notes = append(p.Notes, "the snapshot was never verified: its filesystem is checked before anything is stopped")
	case v.OK:
	case !asked.Force:
		return refuse("cid", "snapshot %q is known to be bad (force restores it all the same): %s", s.CID, v.Result)
	default:
		p.Warnings = append(p.Warnings, "the snapshot is known to be bad: "+v.Result)
	}
	if !s.Clean {
		p.Warnings = append(p.Warnings, "the snapshot is not clean: "+s.Note)
	}
	return nil
}

// chooseDisk finds the disk, which must be attached.
func (a *Agent) chooseDisk(_ context.Context, p *RestorePlan, _ RestoreRequest) error {
	disks, err := a.Settings.selected([]string{p.Snapshot.DiskCID})
	if err != nil {
		return err
	}
	p.Disk, p.Disks = disks[0], disks
	return nil
}

// checkRestoring finds what is in the way of taking the disk out of its place.
func (a *Agent) checkRestoring(ctx context.Context, p *RestorePlan, _ RestoreRequest) error {
	if err := a.checkCPI(Request{}); err != nil {
		return err
	}
	survey, err := a.System.Survey()
	if err != nil {
		return err
	}
	on, err := survey.Filesystems(p.Disks)
	if err != nil {
		return &RefusedError{Err: err}
	}
	at := slices.IndexFunc(on.Filesystems, func(f quiesce.Filesystem) bool { return f.Configured })
	if at < 0 {
		return refuse("", "cannot restore disk %q: nothing of it is mounted where disks[].mounts says", p.Disk.CID)
	}
	f := on.Filesystems[at]
	disk, err := remount.Of(f.Path)
	if err != nil {
		return &RefusedError{Err: err}
	}
	if !disk.IsDirectory() { // which has others beside it
		err = errors.Join(alone(on), survey.Independent(on.Filesystems, a.Settings.Depends))
	}
	if err != nil {
		return refuse("", "cannot restore disk %q: %w", p.Disk.CID, err)
	}
	if p.SizeMiB, err = sizeMiB(p.Snapshot, f); err != nil {
		return err
	}
	p.Filesystems, p.Point, p.Mounts = []quiesce.Filesystem{f}, f.Path, remount.Points(disk.Mounts)
	if err := a.CPI.SwapDisks(ctx, "", ""); cpi.CannotDo(err) { // asked of no disk, it does nothing
		return refuse("", "the CPI cannot put one disk in the place of another (swap_disks): %w", err)
	}
	return nil
}

// alone says what a disk has beside one filesystem of its own, nil for nothing: no
// partitions, no volumes, no swap, no images in use.
func alone(on *quiesce.Contents) error {
	if len(on.Filesystems) != 1 {
		var all []string
		for _, f := range on.Filesystems {
			all = append(all, f.Path)
		}
		return fmt.Errorf("it has not one filesystem, but %s", strings.Join(append(all, on.Notes...), ", "))
	}
	f := on.Filesystems[0]
	switch {
	case len(on.Notes) > 0:
		return errors.New(strings.Join(on.Notes, "; "))
	case f.Root:
		return errors.New("it is the root filesystem")
	case f.Type == "btrfs":
		return remount.ErrSameID
	case len(f.Devices) != 1:
		return fmt.Errorf("its filesystem has the devices %s", strings.Join(f.Devices, ", "))
	}
	if part := remount.PartOf(f.Devices[0]); part != "" {
		return errors.New(part)
	}
	return nil
}

// sizeMiB is how large the new disk is to be: as the disk was that was snapshotted or, if
// that is not known, as it is.
func sizeMiB(s Snapshot, f quiesce.Filesystem) (int64, error) {
	if s.DiskSize > 0 {
		return inMiB(s.DiskSize), nil
	}
	size, err := remount.Size(f.Superblock)
	return inMiB(size), err
}

func inMiB(bytes int64) int64 { return (bytes + 1<<20 - 1) >> 20 }

// lookAtJobs decides what is done to the jobs: what level stop does, without the hooks
// that are a snapshot's.
func (a *Agent) lookAtJobs(ctx context.Context, p *RestorePlan, _ RestoreRequest) error {
	p.Asked, p.Level = LevelStop, LevelStop
	in, err := a.inventory(ctx, LevelStop)
	if err != nil {
		return err
	}
	p.inventory = in
	delete(in.Scripts, jobs.PreSnapshot)
	switch {
	case a.unsupervised() && in.CannotLock == nil:
		p.Level = LevelNone
		p.Notes = append(p.Notes, "no supervisor is configured: whatever uses the disk has to be stopped by hand before")
	case in.CannotStop != nil:
		return refuse("", "cannot stop the jobs: %w", in.CannotStop)
	case in.AtRest:
		p.JobsAtRest = true
		p.Notes = append(p.Notes, "the director has stopped the jobs already: they are left as they are")
	}
	return nil
}

// listRestore lists what is done.
func (p *RestorePlan) listRestore(b Budgets) {
	add := func(kind ActionKind, target string) { p.Actions = append(p.Actions, Action{kind, target, b.Resume}) }
	p.Actions = []Action{{ActMakeDisk, p.Snapshot.CID, b.Snapshot}, {ActCheckDisk, p.Snapshot.CID, b.Snapshot}}
	p.listJobs(b, p.inventory)
	for _, point := range slices.Backward(p.Mounts) {
		add(ActUnmount, point)
	}
	add(ActSwap, p.Disk.CID)
	for _, point := range p.Mounts {
		add(ActMount, point)
	}
	if p.Level == LevelStop && !p.JobsAtRest {
		for _, s := range p.inventory.running() {
			add(ActStart, s.Name)
		}
	}
}

// planForDirector plans for a disk that a director has: it knows its disks by their
// CIDs, and would put the old one back.
func (a *Agent) planForDirector(ctx context.Context, p *RestorePlan) {
	p.Asked, p.Level = LevelNone, LevelNone
	p.SizeMiB, p.CannotMake = a.sizeByCPI(ctx, p.Snapshot)
	made := "NEW-DISK-CID"
	if p.CannotMake != nil {
		p.Steps = []string{fmt.Sprintf("# make a disk from snapshot %s at the IaaS; %s is its CID below", p.Snapshot.CID, made)}
	} else {
		p.Actions = []Action{{ActMakeDisk, p.Snapshot.CID, a.Settings.Budgets.Snapshot}}
	}
	p.Steps = append(p.Steps, attachSteps(a.Settings.Instance, made)...)
	p.Notes = append(p.Notes, fmt.Sprintf(
		"the director has disk %s: it does not know of another until it is told to attach it, and then keeps this one among its orphaned disks", p.Disk.CID))
}

// sizeByCPI is how large a disk from the snapshot is to be, in MiB. The error says why the
// CPI makes none: one that does not know of snapshots would make an empty disk.
func (a *Agent) sizeByCPI(ctx context.Context, s Snapshot) (int64, error) {
	if err := a.checkCPI(Request{}); err != nil {
		return 0, fmt.Errorf("no disk can be made here: %w", err)
	}
	all, err := a.CPI.ListSnapshots(ctx)
	if err != nil {
		return 0, fmt.Errorf("the CPI does not say that it makes disks from snapshots (list_snapshots): %w", err)
	}
	at := slices.IndexFunc(all, func(one cpi.SnapshotInfo) bool { return one.CID == s.CID })
	if at < 0 {
		return 0, fmt.Errorf("the CPI does not have snapshot %q", s.CID)
	}
	size := cmp.Or(s.DiskSize, all[at].DiskSize)
	if size == 0 {
		return 0, fmt.Errorf("nobody knows how large the disk of snapshot %q was", s.CID)
	}
	return inMiB(size), nil
}
