package remount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/quiesce"
	"github.com/quiesced/quiesced/quiesce/failpoint"
)

// At is the disk at a path: that of its block device or, of a disk that is a directory,
// of that. The mounts are where it is to be mounted, or may be.
func At(path string, mounts []Mount) (*Disk, error) {
	s, err := find(path)
	if err != nil {
		return nil, err
	}
	return &Disk{Superblock: s.superblock, Mounts: mounts, source: s}, nil
}

// Mount mounts a disk of At. What of it is mounted already is left as it is; another
// filesystem in its place is an error. Unmount undoes it, also where it failed.
func (d *Disk) Mount(ctx context.Context) error {
	all, err := ordered(d.Mounts)
	if err != nil {
		return err
	}
	for _, m := range all {
		there, err := d.source.isAt(m, all[0])
		if err == nil && !there {
			err = d.source.mount(ctx, m, all[0])
		}
		if err != nil {
			return err
		}
		failpoint.Hit("mounting")
	}
	return nil
}

// ordered has the mount of which the others are binds first.
func ordered(mounts []Mount) ([]Mount, error) {
	first, err := whole(mounts)
	if err != nil {
		return nil, err
	}
	rest := slices.DeleteFunc(slices.Clone(mounts), func(m Mount) bool { return m == first })
	return append([]Mount{first}, rest...), nil
}

// source is what is to be mounted.
type source struct {
	path       string
	isDevice   bool               // or else a directory
	superblock quiesce.Superblock // of the filesystem on the device, or of that with the directory
}

func find(path string) (source, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return source{}, fmt.Errorf("cannot look at the disk %q: %w", path, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return source{path, true, number(st.Rdev)}, nil
	case unix.S_IFDIR:
		sb, err := lyingOn(path)
		return source{path, false, sb}, err
	}
	return source{}, fmt.Errorf("cannot mount %q: it is neither a block device nor a directory", path)
}

func number(dev uint64) quiesce.Superblock {
	return quiesce.Superblock{Major: unix.Major(dev), Minor: unix.Minor(dev)}
}

// lyingOn is the superblock on which a path lies, as the mount table has it: btrfs shows
// other numbers with each file.
func lyingOn(path string) (quiesce.Superblock, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st); err != nil {
		return quiesce.Superblock{}, fmt.Errorf("cannot look at %q: %w", path, err)
	}
	table, err := read()
	if err != nil {
		return quiesce.Superblock{}, err
	}
	for _, m := range table {
		if uint64(m.ID) == st.Mnt_id {
			return superblock(m), nil
		}
	}
	return quiesce.Superblock{}, fmt.Errorf("cannot find the mount on which %q lies", path)
}

// isAt says whether a mount is there already. Another filesystem in its place is an
// error.
func (s source) isAt(m, first Mount) (bool, error) {
	table, err := read()
	if err != nil {
		return false, err
	}
	found := top(table, m.Point)
	if found == nil {
		return false, nil
	}
	same := superblock(found) == s.superblock
	if same && !s.isDevice {
		same, err = isSame(s.from(m, first), m.Point)
	}
	if err == nil && !same {
		err = fmt.Errorf("cannot mount the disk at %q: %s on %s is mounted there", m.Point, found.FSType, found.Source)
	}
	return same, err
}

func isSame(a, b string) (bool, error) {
	one, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other), err
}

// from is what is bound to a mount point: a directory of the disk.
func (s source) from(m, first Mount) string {
	if s.isDevice {
		return filepath.Join(first.Point, m.Root)
	}
	return filepath.Join(s.path, strings.TrimPrefix(m.Root, strings.TrimSuffix(first.Root, "/")))
}

// mount makes one mount, of which first is the one that shows all of the disk. What is
// bound gets its own options after that: mount(8) cannot do both at once.
func (s source) mount(ctx context.Context, m, first Mount) error {
	if s.isDevice && m == first {
		return run(ctx, "mount", "-t", m.Type, "-o", m.options(), s.path, m.Point)
	}
	if err := run(ctx, "mount", "--bind", s.from(m, first), m.Point); err != nil {
		return err
	}
	return run(ctx, "mount", "-o", "remount,bind,"+m.Options, m.Point)
}

// shown are words that a mount table shows among a superblock's options and that mount(8)
// is not given: what is none, what is another on the copy, and whether it may be written
// to, which an error changes: what was wanted is what the mount says.
var shown = []string{"seclabel", "emergency_ro", "shutdown", "rw", "ro", "subvolid"}

// options are those of mount(8).
func (m Mount) options() string {
	all := strings.Split(m.Options, ",")
	for _, o := range strings.Split(m.Super, ",") {
		name, _, _ := strings.Cut(o, "=")
		if o != "" && !slices.Contains(shown, name) {
			all = append(all, o)
		}
	}
	return strings.Join(all, ",")
}

// ErrSameID is returned for a disk that cannot be mounted beside its copy.
var ErrSameID = errors.New("a btrfs on a device has the same id as its copy, and the kernel takes one for the other")

// Try mounts a disk as the mounts say, in a mount namespace of its own that ends with
// the attempt: nobody sees it. The disk must not be mounted; one that it is a copy of
// may be. A directory needs no trying.
func Try(ctx context.Context, path string, mounts []Mount) error {
	s, err := find(path)
	if err != nil || !s.isDevice {
		return err
	}
	first, err := whole(mounts)
	if err != nil {
		return err
	}
	options := first.options()
	switch first.Type {
	case "xfs": // which refuses a second one of an id
		options += ",nouuid"
	case "btrfs":
		return ErrSameID
	}
	cmd := exec.CommandContext(ctx, "mount", "-t", first.Type, "-o", options, path, first.Point)
	if err := execute(ctx, cmd, syscall.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot mount the disk aside: %w", err)
	}
	return awaitFree(ctx, path, time.Now().Add(patience)) // the namespace ends a little later
}
