// Package processes follows processes by /proc and pidfd: what a service has
// forked, and the moment at which the last of it has ended. A zombie has ended.
package processes

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// stat is what is used of /proc/PID/stat.
type stat struct {
	jobs.Process
	parent int
	ended  bool // a zombie, which its parent has not seen yet
}

// Find returns the process that has a pid now. It answers false if none runs.
func Find(pid int) (jobs.Process, bool) {
	s, ok := read(pid)
	return s.Process, ok && !s.ended
}

// Alive says whether p runs.
func Alive(p jobs.Process) bool {
	found, ok := Find(p.PID)
	return ok && found == p
}

// StartedAfter says whether p was started later than a time of the wall clock, with
// two seconds' grace.
func StartedAfter(p jobs.Process, when time.Time) bool {
	var sinceBoot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &sinceBoot); err != nil {
		return false
	}
	age := time.Duration(sinceBoot.Nano()) - time.Duration(p.StartTime)*(time.Second/ticks)
	return time.Since(when) > age+2*time.Second
}

// ticks a second has in /proc, on all that Go runs on.
const ticks = 100

// Table is all processes, as they were when it was read.
type Table struct {
	byPID    map[int]stat
	children map[int][]stat // by their parent's pid
}

// Read reads /proc, which takes about 20 µs for each process.
func Read() Table {
	t := Table{byPID: map[int]stat{}, children: map[int][]stat{}}
	dir, err := os.Open("/proc")
	if err != nil {
		return t
	}
	defer func() { _ = dir.Close() }()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if s, ok := read(pid); ok {
			t.children[s.parent] = append(t.children[s.parent], s)
			t.byPID[pid] = s
		}
	}
	return t
}

// Find returns the process that had a pid.
func (t Table) Find(pid int) (jobs.Process, bool) {
	s, ok := t.byPID[pid]
	return s.Process, ok && !s.ended
}

// Tree lists those of the roots that ran, and all that descended from them, sorted by
// pid. A child whose parent had ended is no longer found by it.
func (t Table) Tree(roots ...jobs.Process) []jobs.Process {
	var found []jobs.Process
	seen := map[int]bool{}
	var add func(stat)
	add = func(s stat) {
		if seen[s.PID] {
			return
		}
		seen[s.PID] = true
		if !s.ended {
			found = append(found, s.Process)
		}
		for _, child := range t.children[s.PID] {
			add(child)
		}
	}
	for _, root := range roots {
		if s, ok := t.byPID[root.PID]; ok && s.Process == root {
			add(s)
		}
	}
	slices.SortFunc(found, func(a, b jobs.Process) int { return a.PID - b.PID })
	return found
}

func read(pid int) (stat, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, false
	}
	return parse(pid, b)
}

// parse skips the command's name, which may hold spaces and parentheses.
func parse(pid int, b []byte) (stat, bool) {
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 20 {
		return stat{}, false
	}
	parent, err := strconv.Atoi(string(f[1]))
	if err != nil {
		return stat{}, false
	}
	start, err := strconv.ParseUint(string(f[19]), 10, 64)
	ended := bytes.ContainsAny(f[0], "ZX")
	return stat{Process: jobs.Process{PID: pid, StartTime: start}, parent: parent, ended: ended}, err == nil
}
