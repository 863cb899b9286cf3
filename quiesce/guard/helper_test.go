package guard_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/guard"
)

// playRole is this test binary run as a helper.
func playRole(role string, args []string) int {
	switch role {
	case "touch":
		return playTouch(args[0])
	case "writer":
		return playWriter(args[0])
	case "daemon":
		return playDaemon(args[0], args[1], args[2:])
	case "thawing daemon":
		return playThawingDaemon(args[0], args[1], args[2])
	case "blocked daemon":
		return playBlockedDaemon(args[0], args[1], args[2])
	case "huge writer":
		return playHugeWriter(args[0])
	case "truncate":
		return playTruncate(args[0])
	case "listener":
		return playListener(args[0], args[1])
	}
	return 2
}

// playTouch creates a file in dir and removes it.
func playTouch(dir string) int {
	name := filepath.Join(dir, "touched-"+strconv.Itoa(os.Getpid()))
	fmt.Println("trying")
	f, err := os.Create(name)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	f.Close()
	os.Remove(name)
	return 0
}

// playTruncate opens a file and cuts it off.
func playTruncate(name string) int {
	f, err := os.Create(name)
	if err != nil {
		return 1
	}
	f.Close()
	return 0
}

// playWriter appends to a file in dir until it is killed, a line on its stdout
// for each write.
func playWriter(dir string) int {
	f, err := os.Create(filepath.Join(dir, "written"))
	if err != nil {
		return 1
	}
	for {
		if _, err := f.WriteString("x"); err != nil {
			return 1
		}
		fmt.Println("wrote")
		time.Sleep(time.Millisecond)
	}
}

// playDaemon freezes mounts and beats until it is killed.
func playDaemon(binary, dir string, mounts []string) int {
	g, err := freezeFor(binary, dir, mounts)
	return beatOn(g, err)
}

func freezeFor(binary, dir string, mounts []string) (*guard.Guard, error) {
	ctx := context.Background()
	b, err := guard.OpenBinary(binary)
	if err != nil {
		return nil, err
	}
	var fs []guard.Filesystem
	for _, m := range mounts {
		f, err := guard.Identify(m)
		if err != nil {
			return nil, err
		}
		fs = append(fs, f)
	}
	g, err := guard.Start(ctx, b, fs, guard.Options{RunID: "helper", Dir: dir, Deadline: 10 * time.Second})
	if err == nil {
		err = g.Freeze(ctx)
	}
	return g, err
}

func beatOn(g *guard.Guard, err error) int {
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("frozen", g.Process().PID)
	for {
		g.Beat()
		time.Sleep(100 * time.Millisecond)
	}
}

// helper is a running child, with what it says.
type helper struct {
	cmd   *exec.Cmd
	lines chan string
	ended chan struct{}
	count atomic.Int64 // lines so far
}

func startHelper(t testing.TB, role string, args ...string) *helper {
	t.Helper()
	h := &helper{cmd: exec.Command("/proc/self/exe", args...), lines: make(chan string, 4), ended: make(chan struct{})}
	h.cmd.Env = append(os.Environ(), roleEnv+"="+role, "GORACE=atexit_sleep_ms=0")
	out, err := h.cmd.StdoutPipe()
	if err == nil {
		err = h.cmd.Start()
	}
	if err != nil {
		t.Fatalf("cannot start helper %s: %v", role, err)
	}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			h.count.Add(1)
			select {
			case h.lines <- s.Text():
			default:
			}
		}
		h.cmd.Wait()
		close(h.ended)
	}()
	t.Cleanup(func() { h.kill(t) })
	return h
}

// kill kills the helper and waits for its end, which a frozen filesystem may
// delay until the armed thaw.
func (h *helper) kill(t testing.TB) {
	h.cmd.Process.Kill()
	select {
	case <-h.ended:
	case <-time.After(armed + time.Second):
		t.Errorf("helper %d does not end", h.cmd.Process.Pid)
	}
}

// says waits for the next line, which must begin with want, and returns the
// rest.
func (h *helper) says(t testing.TB, want string) string {
	t.Helper()
	select {
	case line := <-h.lines:
		rest, ok := strings.CutPrefix(line, want)
		if !ok {
			t.Fatalf("helper says %q, want %q", line, want)
		}
		return strings.TrimSpace(rest)
	case <-time.After(5 * time.Second):
		t.Fatalf("helper does not say %q", want)
	}
	return ""
}

// endsWithin says whether the helper ends in time.
func (h *helper) endsWithin(d time.Duration) bool {
	select {
	case <-h.ended:
		return true
	case <-time.After(d):
		return false
	}
}
