package local

import (
	"errors"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What linux/btrfs.h calls BTRFS_IOC_….
const (
	iocSubvolCreate   = 0x5000940e
	iocSnapDestroy    = 0x5000940f
	iocSnapCreateV2   = 0x50009417
	iocSubvolRootrefs = 0xd000943d
)

const (
	subvolReadOnly = 1 << 1

	// subvolInode is the inode number of every subvolume's directory.
	subvolInode = 256
)

// volArgs is struct btrfs_ioctl_vol_args.
type volArgs struct {
	fd   int64
	name [4088]byte
}

// volArgsV2 is struct btrfs_ioctl_vol_args_v2.
type volArgsV2 struct {
	fd, transid int64
	flags       uint64
	unused      [4]uint64
	name        [4040]byte
}

// createSubvolume makes an empty subvolume of a name in an open directory.
func createSubvolume(dir *os.File, name string) error {
	var args volArgs
	copy(args.name[:], name)
	return btrfsIoctl(dir, iocSubvolCreate, unsafe.Pointer(&args))
}

// snapshotSubvolume clones a subvolume, as it is at one moment with all that was
// written, under a name in an open directory of the same filesystem. On a filesystem
// that is frozen it waits for the thaw.
func snapshotSubvolume(dir *os.File, name string, source *os.File, readOnly bool) error {
	args := volArgsV2{fd: int64(source.Fd())}
	if readOnly {
		args.flags = subvolReadOnly
	}
	copy(args.name[:], name)
	return btrfsIoctl(dir, iocSnapCreateV2, unsafe.Pointer(&args))
}

// destroySubvolume removes a subvolume, full as it may be, at once. It does so even
// where it is mounted.
func destroySubvolume(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	var args volArgs
	copy(args.name[:], filepath.Base(path))
	err = btrfsIoctl(dir, iocSnapDestroy, unsafe.Pointer(&args))
	if errors.Is(err, unix.ENOTEMPTY) {
		return errNested
	}
	return err
}

// errNested is returned for what cannot be done to a subvolume within which others lie.
var errNested = errors.New("other subvolumes lie within it")

// notNested returns errNested for a subvolume within which others lie.
func notNested(subvolume *os.File) error {
	var args [4096]byte // struct btrfs_ioctl_get_subvol_rootref_args
	err := btrfsIoctl(subvolume, iocSubvolRootrefs, unsafe.Pointer(&args))
	if errors.Is(err, unix.EOVERFLOW) || err == nil && args[4088] > 0 { // num_items, or more than it tells at once
		return errNested
	}
	return err
}

func btrfsIoctl(file *os.File, request uintptr, args unsafe.Pointer) error {
	return ignoringInterrupts(func() error {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), request, uintptr(args))
		if errno != 0 {
			return errno
		}
		return nil
	})
}

// isBtrfs reports whether an open file lies on btrfs.
func isBtrfs(file *os.File) (bool, error) {
	var stat unix.Statfs_t
	err := unix.Fstatfs(int(file.Fd()), &stat)
	return uint32(stat.Type) == unix.BTRFS_SUPER_MAGIC, err
}
