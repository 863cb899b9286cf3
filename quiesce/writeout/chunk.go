package writeout

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of chunks, in bytes, and the time that one should take: a write of
// somebody else's may have to wait for as long.
const (
	minChunk  = 256 << 10
	maxChunk  = 8 << 20
	chunkTime = 4 * time.Millisecond
)

// chunks writes files out, a chunk at a time.
type chunks struct {
	size  int64     // of the next one
	until time.Time // when to stop
	bytes int64     // that were found dirty: less than was written where a folio is larger than a chunk; chunks' sizes where the kernel does not tell
	blind bool      // the kernel has no cachestat
}

// file writes a file out, and returns false when the time is over.
func (c *chunks) file(fd int, size int64) bool {
	if c.dirty(fd, 0, size) == 0 {
		return true
	}
	if !c.blind {
		return c.span(fd, 0, size)
	}
	for from := int64(0); from < size; {
		length := min(c.size, size-from)
		if c.bytes += length; !c.write(fd, from, length) {
			return false
		}
		from += length
	}
	return true
}

// span writes a part of a file out. A clean one is passed over as a whole, so
// what is dirty in a large file is found by halving.
func (c *chunks) span(fd int, from, length int64) bool {
	dirty := c.dirty(fd, from, length)
	if dirty == 0 {
		return true
	}
	if length <= c.size {
		c.bytes += dirty
		return c.write(fd, from, length)
	}
	half := (length/2 + pageSize - 1) / pageSize * pageSize
	return c.span(fd, from, half) && c.span(fd, from+half, length-half)
}

const pageSize = 4096

// write starts the writing of a chunk, waits for its end, and sizes the next.
func (c *chunks) write(fd int, from, length int64) bool {
	began := time.Now()
	_ = unix.SyncFileRange(fd, from, length, unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	switch took := time.Since(began); {
	case took < chunkTime/2:
		c.size = min(2*c.size, maxChunk)
	case took > 2*chunkTime:
		c.size = max(c.size/2, minChunk)
	}
	return time.Now().Before(c.until)
}

// dirty is how many bytes of a part are dirty; all of it where the kernel does
// not tell (before Linux 6.5).
func (c *chunks) dirty(fd int, from, length int64) int64 {
	if c.blind {
		return length
	}
	span := struct{ off, length uint64 }{uint64(from), uint64(length)}
	var found struct{ cached, dirty, writeback, evicted, recentlyEvicted uint64 }
	_, _, errno := unix.Syscall6(unix.SYS_CACHESTAT, uintptr(fd),
		uintptr(unsafe.Pointer(&span)), uintptr(unsafe.Pointer(&found)), 0, 0, 0)
	switch errno {
	case 0:
		return int64(found.dirty) * pageSize
	case unix.ENOSYS:
		c.blind = true
	}
	return length
}
