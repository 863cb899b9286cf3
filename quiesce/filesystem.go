package quiesce

import (
	"fmt"
	"strings"
)

// Disk is a persistent disk as an operator configures it: by its device, by
// where its filesystems are mounted, or by both.
type Disk struct {
	CID    string
	Device string   // path of its block device, or of a link to it; empty if the mounts tell
	Mounts []string // mount points of filesystems that must be there
}

// Filesystem is a superblock on the disks to be brought to rest.
type Filesystem struct {
	Superblock
	Type       string   // as the kernel names it: ext4, xfs, btrfs
	Path       string   // the mount point through which it is reached, the configured one if there is
	MountID    uint64   // of the mount at Path
	Mounts     []string // every mount point of it in the mount namespace of Path
	Devices    []string // names of its block devices: loop0, vdb1
	Disks      []string // CIDs of the disks on which it lies
	Configured bool     // one of its mount points is configured; else it was found beside
	ReadOnly   bool     // the superblock itself, not only a mount of it
	Root       bool     // it is the root filesystem
	Rank       int      // 0 is the top of a stack; frozen in rising order
}

// freezable are the types whose superblock can be frozen.
var freezable = map[string]bool{
	"ext2": true, "ext3": true, "ext4": true, "xfs": true, "btrfs": true, "f2fs": true, "bcachefs": true,
	"jfs": true, "nilfs2": true, "reiserfs": true, "gfs2": true,
}

// neverOpened are the local types that are never opened: they have no data of
// their own on a disk. The remote ones are not opened either.
var neverOpened = map[string]bool{"tmpfs": true, "ramfs": true, "overlay": true}

// Freezable says why a filesystem is never frozen, nil if it can be.
func (f Filesystem) Freezable() error {
	if !freezable[f.Type] {
		return fmt.Errorf("cannot freeze %q: a filesystem of type %s cannot be held by freezing it", f.Path, f.Type)
	}
	return nil
}

// Writable says why a filesystem is not even written out, nil if it can be.
func (f Filesystem) Writable() error {
	if neverOpened[f.Type] || remote[family(f.Type)] {
		return fmt.Errorf("cannot write out %q: a filesystem of type %s is never opened", f.Path, f.Type)
	}
	return nil
}

// PassedOver says why nothing is done about a filesystem, "" if it is to be
// brought to rest. What is configured is passed over only where there is nothing
// to do; what was found beside it must neither stop the machine nor a snapshot.
func (f Filesystem) PassedOver() string {
	switch {
	case f.ReadOnly:
		return f.Path + " is read-only: nothing to bring to rest"
	case f.Configured:
		return ""
	case f.Root:
		return f.Path + " lies on the disk and is not frozen: it is the root filesystem, and not among the configured mounts"
	case !freezable[f.Type]:
		return fmt.Sprintf("%s lies on the disk and is not frozen: a filesystem of type %s cannot be held by freezing it", f.Path, f.Type)
	}
	return ""
}

// family is a type without the subtype that FUSE adds: fuse.sshfs.
func family(fstype string) string {
	name, _, _ := strings.Cut(fstype, ".")
	return name
}

// MountError says that a configured mount point does not lead to a filesystem.
type MountError struct {
	Disk   string // CID
	Mount  string
	Reason string
}

func (e *MountError) Error() string {
	return fmt.Sprintf("cannot use mount %q of disk %q: %s", e.Mount, e.Disk, e.Reason)
}
