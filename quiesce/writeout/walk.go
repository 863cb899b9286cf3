package writeout

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// changedOnes calls write with the files below a mount point that were changed
// after since, until the time is over. It goes breadth first, and into no other
// mount.
func (c *candidates) changedOnes(root string, since, until time.Time, write func(fd int, size int64) bool) {
	top, ok := statMount(root)
	if !ok {
		return
	}
	for queue := []string{root}; len(queue) > 0; queue = queue[1:] {
		entries, _ := os.ReadDir(queue[0])
		for _, e := range entries {
			if time.Now().After(until) {
				return
			}
			path := filepath.Join(queue[0], e.Name())
			if e.IsDir() {
				if st, ok := statMount(path); ok && st.Mnt_id == top.Mnt_id {
					queue = append(queue, path)
				}
				continue
			}
			if e.Type().IsRegular() && changed(path, since) && !c.visit(self, path, write) {
				return
			}
		}
	}
}

// statMount is what the kernel says of a path, itself and no link.
func statMount(path string) (unix.Statx_t, bool) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &st)
	return st, err == nil
}

func changed(path string, since time.Time) bool {
	st, ok := statMount(path)
	return ok && (st.Mtime.Sec >= since.Unix() || st.Ctime.Sec >= since.Unix())
}

// dirtyFor is how long the kernel leaves a page dirty, at most.
func dirtyFor() time.Duration {
	const usual = 35 * time.Second
	var sum time.Duration
	for _, name := range []string{"dirty_expire_centisecs", "dirty_writeback_centisecs"} {
		text, err := os.ReadFile("/proc/sys/vm/" + name)
		n, parseErr := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || parseErr != nil {
			return usual
		}
		sum += time.Duration(n) * 10 * time.Millisecond
	}
	return sum + time.Second // mtime lags behind by a tick, and is cut to seconds here
}
