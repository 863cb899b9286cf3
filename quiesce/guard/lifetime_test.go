package guard_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/guard"
)

func TestStartLeavesNothingBehindWhenTheGuardCannotRun(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	for _, program := range []string{"/bin/true", "/bin/cat"} { // ends; echoes nothing sensible
		other, err := guard.OpenBinary(program)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := guard.Start(ctx, other, identify(t, mnt), guard.Options{RunID: "r", Dir: b.dir, Deadline: time.Second}); err == nil {
			t.Errorf("%s passes for a guard", program)
		}
		b.wantEmpty(t)
	}
}

func TestARemovedExecutableStillRuns(t *testing.T) {
	mnt, dir := newFilesystem(t, "ext4"), shortDir(t)
	contents, err := os.ReadFile(guardPath)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "quiesced-guard")
	if err := os.WriteFile(path, contents, 0o755); err != nil {
		t.Fatal(err)
	}
	b := &bed{dir: shortDir(t)}
	if b.binary, err = guard.OpenBinary(path); err != nil {
		t.Fatal(err)
	}
	defer b.binary.Close()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if res := thaw(t, b.frozen(t, identify(t, mnt), guard.Options{})); !res.Unbroken() {
		t.Errorf("result %+v, want it unbroken", res)
	}
}

func TestTheCollectorDoesNotEndTheWindow(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.frozen(t, identify(t, mnt), guard.Options{})
	for range 5 {
		runtime.GC()
		time.Sleep(20 * time.Millisecond)
	}
	wantFrozen(t, mnt)
	if res := thaw(t, g); res.Cause != guard.CauseAsked || !res.Unbroken() {
		t.Errorf("result %+v, want it asked", res)
	}
}

func TestTheGuardLocksItsMemoryAndLeavesTheSession(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	began := time.Now()
	g := b.frozen(t, identify(t, mnt), guard.Options{})
	frozen := time.Since(began)
	pid := g.Process().PID
	smaps, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	session, _, errno := syscall.RawSyscall(syscall.SYS_GETSID, uintptr(pid), 0, 0)
	score, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/oom_score_adj")
	thaw(t, g)
	locked := field(t, string(smaps), "Locked:")
	t.Logf("from Start to frozen %v, Locked %d kB, Rss %d kB", frozen, locked, field(t, string(smaps), "Rss:"))
	if locked == 0 || locked > 8<<10 {
		t.Errorf("%d kB locked", locked)
	}
	if errno != 0 || int(session) != pid {
		t.Errorf("session %d of process %d", session, pid)
	}
	exempt := strings.TrimSpace(string(score)) == "-1000" // not without CAP_SYS_RESOURCE
	if warned := strings.Contains(strings.Join(g.Warnings(), " "), "OOM"); exempt == warned {
		t.Errorf("oom_score_adj %q, warnings %q", score, g.Warnings())
	}
}

func field(t *testing.T, text, name string) int {
	t.Helper()
	_, rest, _ := strings.Cut(text, name)
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestManyFilesystemsAreFrozenAtOnce(t *testing.T) {
	b := newBed(t)
	var mounts []string
	for range 64 {
		mounts = append(mounts, newFilesystem(t, "ext4"))
	}
	g := b.start(t, identify(t, mounts...), guard.Options{})
	beat(t, g)
	ready := threads(t, g)
	if err := g.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	frozen := threads(t, g)
	res := thaw(t, g)
	if !res.Unbroken() {
		t.Errorf("result %+v, want it unbroken", res)
	}
	if frozen != ready {
		t.Errorf("the guard has %d threads in the window, had %d when ready", frozen, ready)
	}
}

func threads(t *testing.T, g *guard.Guard) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/" + strconv.Itoa(g.Process().PID) + "/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

// The guard thaws when its daemon is gone. A helper is the daemon here.
func TestThawsWhenTheDaemon(t *testing.T) {
	for _, fate := range []struct {
		name   string
		role   string
		signal syscall.Signal
		cause  guard.Cause
		limit  time.Duration
	}{
		{"is killed", "daemon", syscall.SIGKILL, guard.CausePipe, 800 * time.Millisecond},
		{"is stopped", "daemon", syscall.SIGSTOP, guard.CauseHeartbeat, 2 * time.Second},
		// Such a thread keeps the pipe open and the process from ending.
		{"is killed with a thread blocked by the freeze", "blocked daemon", syscall.SIGKILL, guard.CauseHeartbeat, 2 * time.Second},
		{"is stopped with a thread blocked by the freeze", "blocked daemon", syscall.SIGSTOP, guard.CauseHeartbeat, 2 * time.Second},
	} {
		t.Run(fate.name, func(t *testing.T) {
			b, mnt := newBed(t), newFilesystem(t, "ext4")
			d := startHelper(t, fate.role, guardPath, b.dir, mnt)
			d.says(t, "frozen")
			blocked := wantFrozen(t, mnt)
			began := time.Now()
			d.cmd.Process.Signal(fate.signal)
			if !blocked.endsWithin(5 * time.Second) {
				t.Fatal("still frozen")
			}
			took := time.Since(began)
			t.Logf("thawed after %v", took)
			if took > fate.limit {
				t.Errorf("thawed after %v, want %v at most", took, fate.limit)
			}
			d.kill(t)
			got := recoverAll(t, b, false)
			if len(got) != 1 || got[0].Recovery != guard.RecoveryEnded || !got[0].Result.Unbroken() || got[0].Result.Cause != fate.cause {
				t.Errorf("Recover: %+v, want the end of an unbroken freeze by %v", got, fate.cause)
			}
			b.wantEmpty(t)
		})
	}
}

// What the daemon starts beside must not hold the pipe.
func TestThePipeDoesNotLeakIntoOtherChildren(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	before := childDescriptors(t)
	g := b.frozen(t, identify(t, mnt), guard.Options{})
	during := childDescriptors(t)
	thaw(t, g)
	if before != during {
		t.Errorf("a child has descriptors %q, had %q", during, before)
	}
}

func childDescriptors(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("ls", "/proc/self/fd").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
