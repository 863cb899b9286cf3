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
)

// Process is one process, distinct from all others of this boot.
type Process struct {
	PID       int
	StartTime uint64 // clock ticks after boot
}

// stat is what is used of /proc/PID/stat.
type stat struct {
	Process
	parent, group, session int
	ended                  bool // a zombie, which its parent has not seen yet
}

// Find returns the process that has a pid now. It answers false if none runs.
func Find(pid int) (Process, bool) {
	s, ok := read(pid)
	return s.Process, ok && !s.ended
}

// Alive says whether p runs.
func Alive(p Process) bool {
	found, ok := Find(p.PID)
	return ok && found == p
}

// StartedAfter says whether p was started later than a time of the wall clock, with
// two seconds' grace.
func StartedAfter(p Process, when time.Time) bool {
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
func (t Table) Find(pid int) (Process, bool) {
	s, ok := t.byPID[pid]
	return s.Process, ok && !s.ended
}

// Tree lists those of the roots that ran, and all that descended from them, sorted by
// pid. A child whose parent had ended is no longer found by it.
func (t Table) Tree(roots ...Process) []Process {
	var found []Process
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
	slices.SortFunc(found, func(a, b Process) int { return a.PID - b.PID })
	return found
}

// Group lists those that run in a process group.
func (t Table) Group(id int) []Process {
	return t.those(func(s stat) bool { return s.group == id })
}

// Leaders lists those that run and lead a session.
func (t Table) Leaders() []Process {
	return t.those(func(s stat) bool { return s.session == s.PID })
}

func (t Table) those(wanted func(stat) bool) []Process {
	var found []Process
	for _, s := range t.byPID {
		if !s.ended && wanted(s) {
			found = append(found, s.Process)
		}
	}
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
	s := stat{Process: Process{PID: pid}, ended: bytes.ContainsAny(f[0], "ZX")}
	var err error
	for i, into := range []*int{&s.parent, &s.group, &s.session} {
		if *into, err = strconv.Atoi(string(f[1+i])); err != nil {
			return stat{}, false
		}
	}
	s.StartTime, err = strconv.ParseUint(string(f[19]), 10, 64)
	return s, err == nil
}
