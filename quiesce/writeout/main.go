package writeout

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// Little is how much may be dirty, in bytes, for it not to be worth looking for:
// a syncfs of it holds up nobody.
const Little = 4 << 20

// Main is the child: it writes out the filesystems at the mount points given
// for no longer than the first argument says, and prints what it did.
func Main(args []string, out io.Writer) int {
	if len(args) < 2 {
		fmt.Fprintln(out, "usage: quiesced-guard write-out TIME MOUNT…")
		return 2
	}
	limit, err := time.ParseDuration(args[0])
	if err != nil {
		fmt.Fprintln(out, err)
		return 2
	}
	began := time.Now()
	r := run{roots: args[1:], since: began.Add(-dirtyFor()), until: began.Add(limit)}
	r.all()
	fmt.Fprintf(out, "%d %d\n", r.bytes, r.files)
	return 0
}

// run is one run of the child.
type run struct {
	roots        []string
	since, until time.Time
	size         int64 // of the next chunk

	bytes int64 // written out
	files int   // with anything dirty
}

// self is this process's folder.
const self = "/proc/self"

// maxPasses bounds how often those who write on are followed.
const maxPasses = 4

// all writes out in passes until little is left, a pass wins nothing on those
// who write on, or the time is over.
func (r *run) all() {
	r.size = minChunk
	last := int64(0)
	for range maxPasses {
		written := r.pass()
		r.bytes += written
		if written <= Little || last != 0 && written > last/2 || !time.Now().Before(r.until) {
			return
		}
		last = written
	}
}

// pass writes out what is dirty now, and returns how many bytes that were.
func (r *run) pass() int64 {
	c := candidates{mounts: mounts{}, targets: map[superblock]bool{}, seen: map[file]bool{}}
	for _, root := range r.roots {
		if st, ok := statMount(root); ok {
			c.targets[c.mounts.superblock(st.Mnt_id, self)] = true
		}
	}
	delete(c.targets, "") // a root that is no mount point of ours
	w := chunks{size: r.size, until: r.until}
	write := func(fd int, size int64) bool {
		before := w.bytes
		goOn := w.file(fd, size)
		if w.bytes > before {
			r.files++
		}
		return goOn
	}
	c.openOnes(write)
	walkUntil := time.Now().Add(min(time.Until(r.until)/2, maxWalk))
	for _, root := range r.roots {
		if Dirty() > Little {
			c.changedOnes(root, r.since, walkUntil, write)
		}
	}
	r.size = w.size
	return w.bytes
}

// maxWalk bounds the search for files that nobody has open.
const maxWalk = 2 * time.Second

// Dirty is how many bytes are dirty on the whole machine, which is as many as
// can be on a filesystem.
func Dirty() int64 {
	text, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 1 << 62
	}
	for line := range strings.Lines(string(text)) {
		if pages, ok := strings.CutPrefix(line, "nr_dirty "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(pages), 10, 64)
			return n * int64(os.Getpagesize())
		}
	}
	return 1 << 62
}
