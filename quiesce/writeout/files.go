package writeout

import (
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// file is a regular file, by what identifies it beyond its names.
type file struct{ dev, ino uint64 }

// candidates finds files of the targets, each once.
type candidates struct {
	mounts  mounts
	targets map[superblock]bool
	seen    map[file]bool
}

// openOnes calls write with every file of the targets that a process has open or
// mapped. Processes come and go meanwhile; what cannot be looked at is not there
// any more.
func (c *candidates) openOnes(write func(fd int, size int64) bool) {
	for _, proc := range processes() {
		for _, kind := range []string{"fd", "map_files"} {
			dir := filepath.Join(proc, kind)
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				if !c.visit(proc, filepath.Join(dir, e.Name()), write) {
					return
				}
			}
		}
	}
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

// visit has the file at a path, which a process has, written if it is one of the
// targets' and was not visited yet. It returns what write does: whether to go on.
func (c *candidates) visit(proc, path string, write func(fd int, size int64) bool) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &st)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || !c.targets[c.mounts.superblock(st.Mnt_id, proc)] {
		return true
	}
	f := file{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}
	if c.seen[f] || st.Blocks == 0 && st.Size == 0 {
		return true
	}
	c.seen[f] = true
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return true // it is gone, or somebody has a lease on it
	}
	defer unix.Close(fd)
	return write(fd, int64(st.Size))
}
