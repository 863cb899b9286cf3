package cpi_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/cpi"
)

// daemon is the variable that makes the test binary a daemon that dies: it
// prepares and sends a call of the CPI at the path in it, says which process it
// is, and is killed.
const daemon = "CPI_TEST_DAEMON"

func TestMain(m *testing.M) {
	if path := os.Getenv(daemon); path != "" {
		os.Exit(dyingDaemon(path))
	}
	os.Exit(m.Run())
}

func dyingDaemon(path string) int {
	c := &cpi.Client{Path: path}
	call, err := c.Prepare(filepath.Join(filepath.Dir(path), "call"), "snapshot_disk", "disk-1", cpi.SnapshotMetadata{})
	if err != nil {
		return 1
	}
	if err := call.Arm(context.Background()); err != nil {
		return 1
	}
	if os.Getenv(daemon+"_SENDS") != "" {
		if err := call.Send(); err != nil {
			return 1
		}
	}
	p := call.Process()
	fmt.Println(p.PID, p.StartTime)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	return 1
}

// orphan runs such a daemon and returns what it left.
func orphan(t *testing.T, c *cpi.Client, sends string) (string, cpi.Process) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), daemon+"="+c.Path, daemon+"_SENDS="+sends)
	out, err := cmd.Output()
	var p cpi.Process
	if n, _ := fmt.Sscan(string(out), &p.PID, &p.StartTime); n != 2 {
		t.Fatalf("the daemon said %q: %v", out, err)
	}
	return filepath.Join(filepath.Dir(c.Path), "call"), p
}

func TestANewDaemonWaitsForTheCPIOfADeadOne(t *testing.T) {
	c, dir := newClient(t, `cat >/dev/null; until [ -e $D/go ] || [ ! -e $D ]; do sleep 0.01; done; printf '`+good+`'`)
	out, p := orphan(t, c, "yes")
	call, err := c.Reattach(out, p)
	if err != nil {
		t.Fatal(err)
	}
	if call.Process() != p || !call.Sent() {
		t.Errorf("got %v, sent %v", call.Process(), call.Sent())
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := call.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v before the CPI ended", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	finish(t, call)

	late, err := c.Reattach(out, p)
	if err != nil {
		t.Fatal(err)
	}
	finish(t, late)
}

func TestACPIWhoseDaemonDiedBeforeSendCannotAct(t *testing.T) {
	c, dir := newClient(t, `cat >$D/stdin`)
	out, p := orphan(t, c, "")
	call, err := c.Reattach(out, p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := call.Wait(withPatience(t)); !errors.Is(err, cpi.ErrNoAnswer) {
		t.Errorf("got %v, want ErrNoAnswer", err)
	}
	if _, err := cpi.DecodeRequest([]byte(read(t, filepath.Join(dir, "stdin")))); err == nil {
		t.Error("the CPI got a whole request")
	}
}

func TestAReattachedCPICanBeKilled(t *testing.T) {
	c, _ := newClient(t, `cat >/dev/null; trap '' TERM; while [ -e $D ]; do sleep 0.1; done`)
	out, p := orphan(t, c, "yes")
	call, err := c.Reattach(out, p)
	if err != nil {
		t.Fatal(err)
	}
	call.Abort() // too late, and without effect
	call.Kill(10 * time.Millisecond)
	if _, err := call.Wait(withPatience(t)); !errors.Is(err, cpi.ErrNoAnswer) {
		t.Errorf("got %v, want ErrNoAnswer", err)
	}
}

func TestAnotherProcessOfTheSameIDIsNotWaitedFor(t *testing.T) {
	c, _ := newClient(t, `cat >/dev/null; exec sleep 1000`)
	running, dir := prepare(t, c)
	p := running.Process()
	p.StartTime--
	call, err := c.Reattach(dir, p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := call.Wait(withPatience(t)); !errors.Is(err, cpi.ErrNoAnswer) {
		t.Errorf("got %v, want ErrNoAnswer", err)
	}
	call.Kill(0)
	if running.Process().PID == 0 || syscall.Kill(p.PID, 0) != nil {
		t.Error("the other process was killed")
	}
	running.Abort()
}

func TestADirectoryWithoutFilesHasNoAnswer(t *testing.T) {
	c, _ := newClient(t, "")
	for _, gone := range []cpi.Process{{PID: 1 << 22, StartTime: 1}, {}} {
		call, err := c.Reattach(t.TempDir(), gone)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := call.Wait(withPatience(t)); !errors.Is(err, cpi.ErrNoAnswer) {
			t.Errorf("%+v: got %v, want ErrNoAnswer", gone, err)
		}
	}
}
