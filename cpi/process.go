package cpi

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Process names a process for as long as the machine is up: a pid alone is
// given to another one later. The zero Process is one that is known to be gone.
type Process struct {
	PID int

	// StartTime is in clock ticks since boot: field 22 of /proc/PID/stat.
	StartTime uint64
}

// startTime must be asked for before the process can have been reaped.
func startTime(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("cannot read the start time of process %d: %w", pid, err)
	}
	// The second field is a file name in parentheses and may hold anything.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	const startTimeField = 22 - 3
	if len(fields) <= startTimeField {
		return 0, fmt.Errorf("cannot read the start time of process %d: its stat is cut short", pid)
	}
	return strconv.ParseUint(string(fields[startTimeField]), 10, 64)
}

// openProcess returns a pidfd of that very process, or -1 when it is gone.
func openProcess(p Process) (int, error) {
	if p.PID == 0 {
		return -1, nil // known to be gone
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("cannot open process %d: %w", p.PID, err)
	}
	// The descriptor now keeps its process apart from a later one of the same
	// id, so this comparison holds.
	started, err := startTime(p.PID)
	if err != nil || started != p.StartTime {
		_ = unix.Close(fd)
		return -1, nil //nolint:nilerr // it ended meanwhile
	}
	return fd, nil
}

// awaitEnd blocks until the pidfd's process has ended, reaped or not, and
// closes the pidfd.
func awaitEnd(pidfd int) {
	defer unix.Close(pidfd)
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		if n, err := unix.Poll(fds, -1); n > 0 || err != unix.EINTR {
			return
		}
	}
}
