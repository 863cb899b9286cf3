package guard

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// gate lets one waiting thread pass each time it is opened. Waiting is a system
// call: the kernel wakes the very thread, while a channel would have the Go
// scheduler hand over to it, for which it starts threads as it sees fit.
type gate int // an eventfd

func newGate() (gate, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_SEMAPHORE)
	return gate(fd), err
}

func (g gate) open() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(int(g), one[:])
}

// pass waits until g is opened.
func (g gate) pass() {
	var count [8]byte
	for {
		if n, _ := unix.Read(int(g), count[:]); n == len(count) {
			return
		}
	}
}

// passWithin waits no longer than that many milliseconds, and says whether g
// was opened. No other thread may wait at g.
func (g gate) passWithin(milliseconds int) bool {
	fds := [1]unix.PollFd{{Fd: int32(g), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds[:], milliseconds)
		if n > 0 {
			g.pass()
			return true
		}
		if err != unix.EINTR {
			return false
		}
	}
}
