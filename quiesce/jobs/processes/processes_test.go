package processes_test

import (
	"bufio"
	"context"
	"errors"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs/processes"
)

// family starts a shell with a child, and returns both, when both run.
func family(t *testing.T) (cmd *exec.Cmd, parent, child processes.Process) {
	t.Helper()
	cmd = exec.Command("sh", "-c", "sleep 100 & echo $!; wait")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	must(t, err)
	t.Cleanup(func() {
		_ = exec.Command("kill", "-9", strconv.Itoa(pid)).Run()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, find(t, cmd.Process.Pid), find(t, pid)
}

func find(t *testing.T, pid int) processes.Process {
	t.Helper()
	p, ok := processes.Find(pid)
	if !ok {
		t.Fatalf("no process %d", pid)
	}
	return p
}

func TestTreeHasChildren(t *testing.T) {
	_, parent, child := family(t)
	if got := processes.Read().Tree(parent); !slices.Contains(got, child) || !slices.Contains(got, parent) || len(got) != 2 {
		t.Errorf("the tree of %v is %v, want %v in it", parent, got, child)
	}
	parent.StartTime++
	if got := processes.Read().Tree(parent); len(got) != 0 {
		t.Errorf("another process of the same pid has the tree %v", got)
	}
}

func TestWatchSeesEachEnd(t *testing.T) {
	cmd, parent, child := family(t)
	w, err := processes.NewWatch()
	must(t, err)
	defer func() { must(t, w.Close()) }()
	must(t, w.Add(parent, child))
	must(t, cmd.Process.Kill())
	waitFor(t, w, parent)
	if processes.Alive(parent) { // a zombie, until it is waited for
		t.Error("an ended process is called alive")
	}
	if !w.Alive(child) {
		t.Error("a child that runs is called ended")
	}
	must(t, exec.Command("kill", strconv.Itoa(child.PID)).Run())
	waitFor(t, w, child)
	must(t, w.Add(parent, child))
	if w.Alive(parent) || w.Alive(child) {
		t.Error("processes that have ended are watched")
	}
}

func waitFor(t *testing.T, w *processes.Watch, p processes.Process) {
	t.Helper()
	for w.Alive(p) {
		begun := time.Now()
		must(t, w.Wait(t.Context(), time.Minute))
		if time.Since(begun) > 30*time.Second {
			t.Fatal("the end was not seen")
		}
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	_, parent, _ := family(t)
	w, err := processes.NewWatch()
	must(t, err)
	defer func() { must(t, w.Close()) }()
	must(t, w.Add(parent))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := w.Wait(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > 30*time.Second {
		t.Errorf("it answers %v after %s", err, time.Since(begun))
	}
}

func TestStartedAfter(t *testing.T) {
	_, parent, _ := family(t)
	for _, c := range []struct {
		when string
		ago  time.Duration
		want bool
	}{
		{"an hour before", time.Hour, true},
		{"now", 0, false},
		{"later", -time.Hour, false},
	} {
		if got := processes.StartedAfter(parent, time.Now().Add(-c.ago)); got != c.want {
			t.Errorf("%s: %v, want %v", c.when, got, c.want)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
