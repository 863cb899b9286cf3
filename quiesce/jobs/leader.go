package jobs

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs/processes"
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
	for _, p := range processes.Read().Leaders() {
		if s, ok := l.scriptOf(p.PID); ok && slices.Contains(readStrings(p.PID, "cmdline"), s.Path) {
			all = append(all, leader{s, p.PID})
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
		left := processes.Read().Group(l.pid)
		if len(left) > 0 {
			_ = syscall.Kill(-l.pid, syscall.SIGKILL)
		}
		return len(left) == 0
	})
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
