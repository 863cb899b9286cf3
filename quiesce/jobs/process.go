package jobs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// startTimeField is the place of a process's start time in /proc/PID/stat, counted
// from the first field after the command's name, which may contain anything.
const startTimeField = 19

// FindProcess is the process that has a pid now. The error is os.ErrNotExist's
// kind if there is none.
func FindProcess(pid int) (Process, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Process{}, fmt.Errorf("cannot find process %d: %w", pid, err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) <= startTimeField {
		return Process{}, fmt.Errorf("cannot find process %d: its status is %q", pid, stat)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return Process{}, fmt.Errorf("cannot find process %d: it has ended: %w", pid, os.ErrNotExist)
	}
	start, err := strconv.ParseUint(fields[startTimeField], 10, 64)
	if err != nil {
		return Process{}, fmt.Errorf("cannot find process %d: %w", pid, err)
	}
	return Process{PID: pid, StartTime: start}, nil
}

// Alive says whether the process has not ended. A zombie has.
func (p Process) Alive() bool {
	now, err := FindProcess(p.PID)
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	return err != nil || now == p
}
