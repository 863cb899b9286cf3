package guard

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// elsewhere opens a directory of f's superblock that is not at f's path any more,
// for a recovery: the mount is in a namespace of which the process that was named
// in the path has ended, or was moved, or unmounted lazily while somebody, as the
// canary does, has it open. cause is why the path does not lead there.
func (f Filesystem) elsewhere(cause error) (int, error) {
	// A descriptor is opened by itself; the way to a mount point may be blocked.
	for _, places := range []func(Filesystem, string) []string{Filesystem.descriptors, Filesystem.mountPoints} {
		for _, proc := range processes() {
			for _, path := range places(f, proc) {
				if fd, err := f.openSame(path); err == nil {
					return fd, nil
				}
			}
		}
	}
	return -1, cause
}

// processes are the folders of all processes.
func processes() []string {
	var all []string
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			all = append(all, filepath.Join("/proc", e.Name()))
		}
	}
	return all
}

// descriptors are those of a process that lead to f's superblock.
func (f Filesystem) descriptors(proc string) []string {
	var found []string
	entries, _ := os.ReadDir(filepath.Join(proc, "fd"))
	for _, e := range entries {
		path := filepath.Join(proc, "fd", e.Name())
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Dev_major == f.Major && st.Dev_minor == f.Minor {
			found = append(found, path)
		}
	}
	return found
}

// mountPoints are those that a process sees of f's superblock. A subvolume of
// btrfs is not found that way: mountinfo has another device than st_dev.
func (f Filesystem) mountPoints(proc string) []string {
	var found []string
	device := strconv.Itoa(int(f.Major)) + ":" + strconv.Itoa(int(f.Minor))
	table, _ := os.ReadFile(filepath.Join(proc, "mountinfo"))
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[2] == device && !strings.Contains(fields[4], `\`) {
			found = append(found, filepath.Join(proc, "root", fields[4]))
		}
	}
	return found
}

// openSame opens a directory and checks that it is on f's superblock. It follows
// the link that a descriptor in /proc is.
func (f Filesystem) openSame(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var found Filesystem
	if err := found.identify(fd); err != nil || found.Major != f.Major || found.Minor != f.Minor {
		unix.Close(fd)
		return -1, unix.ESTALE
	}
	return fd, nil
}
