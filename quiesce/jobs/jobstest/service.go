package jobstest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/jobs/processes"
)

// Service is a service to be defined. The zero value of what it does is a process
// that runs until SIGTERM and ends at once.
type Service struct {
	Name        string
	StopTakes   time.Duration // from SIGTERM to the end of its last process
	IgnoresStop bool          // SIGTERM does not end it, and the bed must not kill it within 5 s either
	Children    int           // processes that its first one forks; the last to end if StopTakes
	Broken      bool          // it ends at once, failing, until Mend
}

// marker is the variable in the environment of all processes of a service.
const marker = "QUIESCED_TEST_SERVICE"

func (s Service) mark(dir string) string { return marker + "=" + filepath.Join(dir, s.Name) }

func (s Service) broken(dir string) string { return filepath.Join(dir, s.Name+".broken") }

// Install writes the program that is the service into dir, which is absolute and
// which the service sees at the same path, and returns its path. It stays in the
// foreground and takes no arguments.
func (s Service) Install(dir string) (string, error) {
	path := filepath.Join(dir, s.Name+".sh")
	if s.Broken {
		if err := os.WriteFile(s.broken(dir), nil, 0o644); err != nil {
			return "", err
		}
	}
	syscall.ForkLock.RLock() // no process that another test starts may inherit what is written to
	defer syscall.ForkLock.RUnlock()
	return path, os.WriteFile(path, []byte(s.program(dir)), 0o755)
}

// program starts itself again with the marker in its environment, where it can
// be seen. Nothing of it holds what its standard streams were.
func (s Service) program(dir string) string {
	head := fmt.Sprintf("#!/bin/sh\n[ \"$%s\" ] || exec env %q \"$0\" </dev/null >/dev/null 2>&1\n[ ! -e %q ] || exit 1\n",
		marker, s.mark(dir), s.broken(dir))
	seconds := strconv.FormatFloat(s.StopTakes.Seconds(), 'f', 3, 64)
	// The shell knows $! as soon as there is the process, and whoever stops it sees that.
	// systemd goes on signalling until it finds no new process: the second sleep is one.
	slow := `trap 'trap "" TERM; kill $!; sleep ` + seconds + `; exit 0' TERM; sleep 100000 & wait`
	switch {
	case s.IgnoresStop:
		return head + "trap '' TERM\nexec sleep 100000\n"
	case s.Children > 0:
		child := "sleep 100000 &\n"
		if s.StopTakes > 0 {
			child = "(" + slow + ") &\n"
		}
		return head + "pids=\ntrap 'kill $pids; exit 0' TERM\n" + strings.Repeat(child+"pids=\"$pids $!\"\n", s.Children) + "wait\n"
	case s.StopTakes > 0:
		return head + slow + "\n"
	default:
		return head + "exec sleep 100000\n"
	}
}

// processes is how many processes the service has when it has come up.
func (s Service) processes() int {
	each := 1
	if s.StopTakes > 0 {
		each = 2 // a shell, and what it waits for
	}
	if s.Children > 0 {
		return 1 + s.Children*each
	}
	return each
}

// Mend has a Broken service start from now on.
func (s Service) Mend(t testing.TB, dir string) {
	t.Helper()
	if err := os.Remove(s.broken(dir)); err != nil {
		t.Fatal(err)
	}
}

// Running lists the processes of a service that run, by looking at all there are.
func (s Service) Running(t testing.TB, dir string) []jobs.Process {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []jobs.Process
	for _, name := range names {
		pid, _ := strconv.Atoi(filepath.Base(name))
		env, err := os.ReadFile(name + "/environ")
		if err != nil || !bytes.Contains(append(env, 0), append([]byte(s.mark(dir)), 0)) {
			continue
		}
		if p, ok := processes.Find(pid); ok {
			found = append(found, p)
		}
	}
	return found
}

// KillAll ends all processes of a service, and returns when they have ended.
func (s Service) KillAll(t testing.TB, dir string) {
	t.Helper()
	killed := s.Running(t, dir)
	for _, p := range killed {
		_ = syscall.Kill(p.PID, syscall.SIGKILL)
	}
	eventually(t, s.Name+" is killed", func() bool {
		for _, p := range killed {
			if processes.Alive(p) {
				return false
			}
		}
		return true
	})
}

// eventually waits for what takes a supervisor a while, a minute at most.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for until := time.Now().Add(time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("it does not come to this: %s", what)
		}
	}
}
