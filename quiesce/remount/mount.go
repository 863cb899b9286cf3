package remount

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"

	"github.com/quiesced/quiesced/quiesce"
)

// Mount is one mount of a disk, with all that it takes to make it again.
type Mount struct {
	Point   string // mount point
	Root    string // directory of the filesystem that is seen there, "/" for all of it
	Type    string // of the filesystem
	Options string // of this mount: rw,nosuid,relatime
	Super   string // of the superblock, which all its mounts share: rw,errors=remount-ro
}

// Disk is a disk with its mounts.
type Disk struct {
	Superblock quiesce.Superblock
	Mounts     []Mount // in the order in which they were made

	source source // of a disk of At
}

// Of finds the disk that is mounted at a mount point, which must be the path that the
// mount table has. On btrfs, whose subvolumes share a superblock, it is what that mount
// shows. Another filesystem that is mounted within is an error: it would be lost.
func Of(point string) (*Disk, error) {
	table, err := read()
	if err != nil {
		return nil, err
	}
	m := top(table, point)
	if m == nil {
		return nil, fmt.Errorf("cannot find the disk: nothing is mounted at %q", point)
	}
	d := &Disk{Superblock: superblock(m)}
	root := "/"
	if m.FSType == "btrfs" {
		root = m.Root
	}
	ids := map[int]bool{}
	for _, one := range table {
		if superblock(one) == d.Superblock && within(one.Root, root) {
			ids[one.ID] = true
			d.Mounts = append(d.Mounts, Mount{one.Mountpoint, one.Root, one.FSType, one.Options, one.VFSOptions})
		}
	}
	for _, one := range table {
		if ids[one.Parent] && !ids[one.ID] {
			return nil, fmt.Errorf("cannot take the disk out of its place: %s is mounted within it, at %q", one.FSType, one.Mountpoint)
		}
	}
	return d, nil
}

// IsDirectory says that the disk is a subvolume among others, and has no device of its
// own.
func (d *Disk) IsDirectory() bool {
	return len(d.Mounts) > 0 && d.Mounts[0].Type == "btrfs" && d.Mounts[0].Root != "/"
}

// Points are the mount points, in the order in which they are mounted.
func Points(mounts []Mount) []string {
	var all []string
	for _, m := range mounts {
		all = append(all, m.Point)
	}
	return all
}

// whole is the mount that shows all of the disk, of which the others are binds. The error
// is for a disk of which only parts are mounted.
func whole(mounts []Mount) (Mount, error) {
	i := slices.IndexFunc(mounts, func(m Mount) bool { return m.Root == "/" || m.Type == "btrfs" })
	if i < 0 {
		return Mount{}, errors.New("cannot mount a disk of which only parts were mounted")
	}
	return mounts[i], nil
}

// read is the mount table of the caller's namespace.
func read() ([]*mountinfo.Info, error) {
	table, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("cannot read the mount table: %w", err)
	}
	return table, nil
}

// top is the last mount at a mount point, nil for none: it covers the others there.
func top(table []*mountinfo.Info, point string) *mountinfo.Info {
	for _, m := range slices.Backward(table) {
		if m.Mountpoint == point {
			return m
		}
	}
	return nil
}

func superblock(m *mountinfo.Info) quiesce.Superblock {
	return quiesce.Superblock{Major: uint32(m.Major), Minor: uint32(m.Minor)}
}

// within says whether a path is another, or lies below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
