package cpi_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/cpi"
)

func TestTheCPISeesWhatADirectorGivesIt(t *testing.T) {
	c, dir := newClient(t, `cat >$D/stdin; readlink /proc/$$/cwd >$D/cwd; echo $# >$D/count; printf '`+good+`'`)
	call, _ := prepare(t, c)
	if err := errors.Join(call.Arm(withPatience(t)), call.Send()); err != nil {
		t.Fatal(err)
	}
	if _, err := call.Wait(withPatience(t)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"stdin": read(t, "testdata/snapshot_disk.json"), "cwd": "/\n", "count": "0\n",
	} {
		if diff := cmp.Diff(want, read(t, filepath.Join(dir, name))); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

func TestTheEnvironmentIsTheDirectors(t *testing.T) {
	t.Setenv("LEAK", "me")
	t.Setenv("HOME", "/home/of a test")
	for _, tt := range []struct {
		name string
		set  func()
		want string
	}{
		{"with TMPDIR", func() { t.Setenv("TMPDIR", "/var/tmp") },
			"PATH=/usr/sbin:/usr/bin:/sbin:/bin\x00HOME=/home/of a test\x00TMPDIR=/var/tmp\x00"},
		{"without TMPDIR", func() { t.Setenv("TMPDIR", "/restored"); os.Unsetenv("TMPDIR") },
			"PATH=/usr/sbin:/usr/bin:/sbin:/bin\x00HOME=/home/of a test\x00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.set()
			c, _ := newClient(t, "cat >/dev/null; sleep 1000")
			call, _ := prepare(t, c)
			if err := call.Arm(withPatience(t)); err != nil {
				t.Fatal(err)
			}
			got := read(t, fmt.Sprintf("/proc/%d/environ", call.Process().PID))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			call.Abort()
		})
	}
}

func TestArmWaitsForACPIThatIsSlowToLoad(t *testing.T) {
	c, dir := newClient(t, `until [ -e $D/go ] || [ ! -e $D ]; do sleep 0.01; done; touch $D/loaded; cat >/dev/null; printf '`+good+`'`)
	call, _ := prepare(t, c)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := call.Arm(short)
	if !errors.Is(err, cpi.ErrNotArmed) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want ErrNotArmed and the cause", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := call.Arm(withPatience(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "loaded")); err != nil {
		t.Errorf("armed before it was loaded: %v", err)
	}
	if call.Sent() {
		t.Error("sent before Send")
	}
	finish(t, call)
}

// finish sends and wants the good answer.
func finish(t *testing.T, call *cpi.Call) {
	t.Helper()
	if err := call.Send(); err != nil {
		t.Fatal(err)
	}
	if !call.Sent() {
		t.Error("not sent after Send")
	}
	answer, err := call.Wait(withPatience(t))
	if err != nil {
		t.Fatal(err)
	}
	if string(answer.Result) != `"snap-1"` {
		t.Errorf("got %s", answer.Result)
	}
}

func TestACallThatIsNotArmedCanBeSent(t *testing.T) {
	c, _ := newClient(t, `sleep 0.1; cat >/dev/null; printf '`+good+`'`)
	call, _ := prepare(t, c)
	finish(t, call)
}

func TestARequestLargerThanThePipeComesWhole(t *testing.T) {
	for _, size := range []int{4000, 65535 - 200, 65536, 1 << 20} {
		for _, armed := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d bytes, armed %v", size, armed), func(t *testing.T) {
				c, dir := newClient(t, `sleep 0.05; cat >$D/stdin; printf '`+good+`'`)
				c.Context["large"] = strings.Repeat("x", size)
				call, _ := prepare(t, c)
				if armed {
					if err := call.Arm(withPatience(t)); err != nil {
						t.Fatal(err)
					}
				}
				finish(t, call)
				text := read(t, filepath.Join(dir, "stdin"))
				if len(text) < size || !strings.HasSuffix(text, `,"api_version":2}`) {
					t.Errorf("got %d bytes, at the end %q", len(text), text[max(0, len(text)-20):])
				}
			})
		}
	}
}

func TestSendDoesNotWaitForACPIThatReadsNothing(t *testing.T) {
	// The heads fill a pipe of 64 KiB to the last byte, nearly, or more.
	for _, size := range []int{100, 65536 - 387, 1 << 20} {
		c, _ := newClient(t, "exec sleep 1000")
		c.Context["large"] = strings.Repeat("x", size)
		call, _ := prepare(t, c)
		done := make(chan error, 1)
		go func() { done <- call.Send() }()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("Send hangs")
		}
		call.Kill(0)
	}
}

func TestAnAbortedCallSeesARequestCutShort(t *testing.T) {
	c, dir := newClient(t, `cat >$D/stdin; touch $D/read`)
	call, _ := prepare(t, c)
	if err := call.Arm(withPatience(t)); err != nil {
		t.Fatal(err)
	}
	call.Abort()
	if call.Sent() {
		t.Error("an aborted call counts as sent")
	}
	if err := call.Send(); !errors.Is(err, cpi.ErrAborted) {
		t.Errorf("Send after Abort: got %v", err)
	}
	if _, err := call.Wait(withPatience(t)); !errors.Is(err, cpi.ErrNoAnswer) {
		t.Errorf("got %v, want ErrNoAnswer", err)
	}
	whole := read(t, "testdata/snapshot_disk.json")
	if diff := cmp.Diff(whole[:len(whole)-1], read(t, filepath.Join(dir, "stdin"))); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestAbortKillsACPIThatIgnoresItsInput(t *testing.T) {
	c, _ := newClient(t, "trap '' TERM; while [ -e $D ]; do sleep 0.1; done")
	call, _ := prepare(t, c)
	call.Abort()
	_, err := call.Wait(withPatience(t))
	if e := wantError[*cpi.SignalError](t, err); e.Signal != syscall.SIGKILL {
		t.Errorf("ended by %v", e.Signal)
	}
}

func TestAbortAfterSendChangesNothing(t *testing.T) {
	c, _ := newClient(t, `cat >/dev/null; sleep 0.1; printf '`+good+`'`)
	call, _ := prepare(t, c)
	if err := call.Send(); err != nil {
		t.Fatal(err)
	}
	call.Abort()
	finish(t, call)
}

func TestKillEndsTheWholeGroup(t *testing.T) {
	c, dir := newClient(t, `trap '' TERM; sh -c 'trap "" TERM; echo $$ >'$D'/pid.tmp; mv '$D'/pid.tmp '$D'/pid; sleep 1000' & wait; sleep 1000`)
	call, _ := prepare(t, c)
	await(t, filepath.Join(dir, "pid"))
	call.Kill(10 * time.Millisecond)
	_, err := call.Wait(withPatience(t))
	if e := wantError[*cpi.SignalError](t, err); e.Signal != syscall.SIGKILL {
		t.Errorf("ended by %v", e.Signal)
	}
	if !errors.Is(err, cpi.ErrNoAnswer) {
		t.Errorf("got %v, want ErrNoAnswer within", err)
	}
	var grandchild int
	fmt.Sscan(read(t, filepath.Join(dir, "pid")), &grandchild)
	awaitGone(t, grandchild)
	call.Kill(0) // of a process that is gone: nothing
}

func awaitGone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(text), ") Z ") {
			return
		}
	}
	t.Fatalf("process %d lives on", pid)
}

func TestALeftoverChildThatHoldsStdoutDelaysNothing(t *testing.T) {
	c, dir := newClient(t, `cat >/dev/null; sleep 1000 & echo $! >$D/pid; printf '`+good+`'`)
	call, _ := prepare(t, c)
	began := time.Now()
	finish(t, call)
	if took := time.Since(began); took > patience/2 {
		t.Errorf("it took %v", took)
	}
	var leftover int
	fmt.Sscan(read(t, filepath.Join(dir, "pid")), &leftover)
	if err := unix.Kill(leftover, 0); err != nil {
		t.Errorf("the leftover is gone: %v", err)
	}
	unix.Kill(leftover, unix.SIGKILL)
}

func TestTheEndOfAWaitLeavesTheCPIAtWork(t *testing.T) {
	c, dir := newClient(t, `cat >/dev/null; until [ -e $D/go ] || [ ! -e $D ]; do sleep 0.01; done; printf '`+good+`'`)
	call, _ := prepare(t, c)
	if err := call.Send(); err != nil {
		t.Fatal(err)
	}
	why := errors.New("something better to do")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := call.Wait(ctx); !errors.Is(err, why) {
		t.Fatalf("got %v, want the cause", err)
	}
	select {
	case <-call.Done():
		t.Fatal("the CPI has ended")
	default:
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	finish(t, call)
	<-call.Done()
	finish(t, call) // as often as one likes
}

func TestTheFilesOfACallAreItsOwn(t *testing.T) {
	c, _ := newClient(t, `cat >/dev/null; echo note >&2; printf '`+good+`'`)
	call, dir := prepare(t, c)
	finish(t, call)
	for name, want := range map[string]struct {
		mode os.FileMode
		text string
	}{"stdout": {0o600, good}, "stderr": {0o600, "note\n"}} {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want.mode || read(t, path) != want.text {
			t.Errorf("%s: mode %v, %q", name, info.Mode(), read(t, path))
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("the directory has %v, %v", entries, err)
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("the directory is %v", info.Mode())
	}
	if _, err := c.Prepare(dir, "info"); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second call in the directory: got %v", err)
	}
}

func TestACPIThatEndsEarlyIsNotArmed(t *testing.T) {
	for name, script := range map[string]string{
		"without reading": "exit 1",
		"after reading":   "head -c 20 >/dev/null; exit 0",
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := newClient(t, script)
			call, _ := prepare(t, c)
			<-call.Done()
			if err := call.Arm(withPatience(t)); err == nil || errors.Is(err, cpi.ErrNotArmed) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestTheInputOfACPIIsInBlockingMode(t *testing.T) {
	c, _ := newClient(t, "exec sleep 1000")
	call, _ := prepare(t, c)
	info := read(t, fmt.Sprintf("/proc/%d/fdinfo/0", call.Process().PID))
	var flags int
	for line := range strings.Lines(info) {
		fmt.Sscanf(line, "flags: %o", &flags)
	}
	if flags&unix.O_NONBLOCK != 0 {
		t.Errorf("its flags are %o", flags)
	}
}
