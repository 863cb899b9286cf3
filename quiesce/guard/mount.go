package guard

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// ioctls of linux/fs.h, _IOWR('X', 119, int) and _IOWR('X', 120, int). The
// argument is not used.
const (
	fiFreeze = 0xC0045877
	fiThaw   = 0xC0045878
)

// Identify returns the filesystem mounted at path with what identifies it:
// device and mount id, as the guard will compare them. Type and rank are the
// caller's to fill in.
func Identify(path string) (Filesystem, error) {
	f := Filesystem{Path: path}
	fd, err := openDirectory(path)
	if err == nil {
		defer unix.Close(fd)
		err = f.identify(fd)
	}
	if err != nil {
		return Filesystem{}, fmt.Errorf("cannot identify the filesystem at %q: %w", path, err)
	}
	return f, nil
}

func (f *Filesystem) identify(fd int) error {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return err
	}
	if st.Mask&unix.STATX_MNT_ID == 0 {
		return unix.EOPNOTSUPP // before Linux 5.8
	}
	f.Major, f.Minor, f.MountID = st.Dev_major, st.Dev_minor, st.Mnt_id
	return nil
}

func openDirectory(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// open opens f's mount point and checks that the same superblock is still
// there, with ESTALE when it is not. sameMount asks for the same mount, too.
func (f Filesystem) open(sameMount bool) (int, error) {
	fd, err := openDirectory(f.Path)
	if err != nil {
		return -1, err
	}
	var found Filesystem
	err = found.identify(fd)
	if err == nil && (found.Major != f.Major || found.Minor != f.Minor || sameMount && found.MountID != f.MountID) {
		err = unix.ESTALE
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// ioctl issues FIFREEZE or FITHAW. The thread may be held up in the kernel for
// as long as it likes.
func ioctl(fd int, request uintptr) syscall.Errno {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, 0)
		if errno != unix.EINTR {
			return errno
		}
	}
}

// boottime and monotonic read their clocks, in ns.
func boottime() uint64  { return clock(unix.CLOCK_BOOTTIME) }
func monotonic() uint64 { return clock(unix.CLOCK_MONOTONIC) }

func clock(id int32) uint64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(id, &ts)
	return uint64(ts.Nano())
}

func toErrno(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) && errno != 0 {
		return errno
	}
	return unix.EIO
}
