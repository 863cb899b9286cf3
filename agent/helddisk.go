package agent

import (
	"slices"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce/remount"
)

// HeldDisk is what a restore did to a disk or intended, and has not brought to an end.
// It is part of what a run holds: durable before each step, in the run's record and
// beside the socket. A HeldDisk is not changed once it was handed on.
//
// A restore makes another disk from the snapshot and exchanges the two: then Disk, by
// which everybody knows the disk, stands for the restored data, and New for what was
// there before. Whether they were exchanged is asked of the disks themselves.
type HeldDisk struct {
	Snapshot string // CID of what is restored
	Disk     string // CID of the persistent disk
	New      string // CID of the disk that was made, "" for none yet, or none any more

	// Mounts are those of Disk before anything of it was unmounted, nil before that.
	Mounts []remount.Mount

	// Between tells what Disk held (One) from what New held before they were to be
	// exchanged; nil before that, and once they are known to hold it again.
	Between *remount.Difference

	Back bool      // the restored disk is no good: it is to be exchanged again
	Side DiskSide  // which is in its place; "" until that is certain
	Call *DiskCall // a call of the CPI that may be under way, nil for none yet
}

// DiskSide says which disk a restore has left in the place of the persistent one.
type DiskSide string

// The sides.
const (
	SideBefore   DiskSide = "before"   // the disk as it was
	SideRestored DiskSide = "restored" // that with the snapshot's data
	SideApart    DiskSide = "apart"    // the disk as it was; the director has to attach the new one
)

// DiskCall is a call of the CPI about disks, by which a daemon that comes later waits
// for it and reads its answer.
type DiskCall struct {
	Dir     string // holds what it prints
	Process cpi.Process
	Boot    string // boot id of the kernel under which it runs
}

// places says where the disk belongs that is not in its place now.
func (d *HeldDisk) places() []string {
	if d.Side != "" {
		return nil
	}
	return slices.Compact(remount.Points(d.Mounts))
}
