package jobs

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// leader is a script's process, which leads the process group of what it has
// started.
type leader struct {
	script Script
	pid    int
}

// leftLeaders are the scripts at work that have no control group. A service that
// one has started may lead a session too, and has inherited its environment, but not
// its command line.
func (l Layout) leftLeaders() []leader {
	var all []leader
	for _, pid := range processes() {
		if st, ok := readStat(pid); !ok || st.ended || st.group != pid || st.session != pid {
			continue
		}
		if s, ok := l.scriptOf(pid); ok && slices.Contains(readStrings(pid, "cmdline"), s.Path) {
			all = append(all, leader{s, pid})
		}
	}
	return all
}

// scriptOf is the script that the environment of a process names, if it has no
// control group.
func (l Layout) scriptOf(pid int) (Script, bool) {
	for _, line := range readStrings(pid, "environ") {
		if text, ok := strings.CutPrefix(line, variable); ok {
			s, how, ok := l.marked(mark(text))
			return s, ok && how == inGroup
		}
	}
	return Script{}, false
}

// kill ends the process group, and returns when it has ended.
func (l leader) kill(ctx context.Context) error {
	return until(ctx, func() bool {
		left := slices.ContainsFunc(processes(), func(pid int) bool {
			st, ok := readStat(pid)
			return ok && !st.ended && st.group == l.pid
		})
		if left {
			_ = syscall.Kill(-l.pid, syscall.SIGKILL)
		}
		return !left
	})
}

func processes() []int {
	var all []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// stat is what is used of /proc/PID/stat.
type stat struct {
	ended          bool // nobody has waited for it yet
	group, session int
}

func readStat(pid int) (stat, bool) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, false
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:]) // before it is a name that may hold anything
	if len(fields) < 4 {
		return stat{}, false
	}
	group, err := strconv.Atoi(string(fields[2]))
	session, sessionErr := strconv.Atoi(string(fields[3]))
	ended := slices.Contains([]string{"Z", "X"}, string(fields[0]))
	return stat{ended, group, session}, err == nil && sessionErr == nil
}

// readStrings reads a file of strings that lies in the memory of a process. The
// kernel may hold up whoever reads there for as long as it holds up the process,
// which no script of ours is that could be ended.
func readStrings(pid int, name string) []string {
	read := make(chan []byte, 1)
	go func() {
		text, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), name))
		read <- text
	}()
	select {
	case text := <-read:
		return strings.Split(string(text), "\x00")
	case <-time.After(time.Second):
		return nil
	}
}
