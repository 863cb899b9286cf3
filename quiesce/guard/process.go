package guard

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process names a process beyond the reuse of its pid.
type Process struct {
	PID       int
	StartTime uint64 // clock ticks since boot, field 22 of /proc/PID/stat
}

// self returns the calling process.
func self() (Process, error) {
	p := Process{PID: os.Getpid()}
	st, err := readStat(p.PID)
	p.StartTime = st.start
	return p, err
}

// alive says whether p runs and has not been killed: a process held up in the
// kernel stays after SIGKILL, but does nothing any more.
func (p Process) alive() bool {
	st, err := readStat(p.PID)
	return err == nil && st.start == p.StartTime && st.state != 'Z' && st.state != 'X' && !killed(p.PID)
}

// pidfd opens p. It returns nil when p is gone.
func (p Process) pidfd() (*os.File, error) {
	if p.PID <= 0 {
		return nil, nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, nil // EINVAL: the pid is now that of a thread
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open process %d: %w", p.PID, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	if st, err := readStat(p.PID); err != nil || st.start != p.StartTime {
		_ = f.Close()
		return nil, nil //nolint:nilerr // it ended meanwhile
	}
	return f, nil
}

// stat is what is used of /proc/PID/stat.
type stat struct {
	state byte
	start uint64
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// parseStat skips the command's name, which may hold spaces and parentheses.
func parseStat(b []byte) (stat, error) {
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 20 {
		return stat{}, errors.New("malformed /proc/PID/stat")
	}
	start, err := strconv.ParseUint(string(f[19]), 10, 64)
	return stat{state: f[0][0], start: start}, err
}

// killed says whether SIGKILL is pending for pid.
func killed(pid int) bool {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	for line := range strings.SplitSeq(string(b), "\n") {
		name, mask, _ := strings.Cut(line, ":\t")
		if name != "SigPnd" && name != "ShdPnd" {
			continue
		}
		if m, err := strconv.ParseUint(mask, 16, 64); err == nil && m&(1<<(unix.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}

// stacks returns the kernel stacks of pid's threads that are in D state.
func stacks(pid int) string {
	var out strings.Builder
	dir := "/proc/" + strconv.Itoa(pid) + "/task/"
	tasks, _ := os.ReadDir(dir)
	for _, t := range tasks {
		b, _ := os.ReadFile(dir + t.Name() + "/stat")
		if st, err := parseStat(b); err != nil || st.state != 'D' {
			continue
		}
		s, _ := os.ReadFile(dir + t.Name() + "/stack")
		fmt.Fprintf(&out, "task %s:\n%s", t.Name(), s)
	}
	return out.String()
}

// fired waits until the process of pidfd has ended, threads and all, and says
// whether it has. A zombie has ended.
func fired(pidfd int, wait time.Duration) bool {
	until := time.Now().Add(wait)
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(time.Until(until), 0).Milliseconds()))
		if n > 0 {
			return true
		}
		if !errors.Is(err, unix.EINTR) && time.Until(until) < time.Millisecond {
			return false
		}
	}
}

// fence kills the process of pidfd and waits for its end. A thread that the
// kernel holds up in an ioctl delays it: then fence answers false.
func fence(pidfd int, wait time.Duration) bool {
	_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	return fired(pidfd, wait)
}

// bootID returns the id of the running boot.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}
