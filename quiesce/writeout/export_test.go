package writeout

import (
	"errors"
	"time"
)

// For the tests: what the kernel says of a file, and what is done where it says
// nothing.

func DirtyOf(fd int, size int64) (int64, error) {
	c := chunks{}
	n := c.dirty(fd, 0, size)
	if c.blind {
		return 0, errors.New("this kernel has no cachestat")
	}
	return n, nil
}

func WriteBlindly(fd int, size int64) bool {
	c := chunks{size: minChunk, blind: true, until: time.Now().Add(time.Minute)}
	return c.file(fd, size)
}

func ParseMounts(table string) map[uint64]string {
	m := mounts{}
	m.parse(table)
	found := map[uint64]string{}
	for id, sb := range m {
		found[id] = string(sb)
	}
	return found
}
