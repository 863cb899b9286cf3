package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// demo runs the demonstration, interrupts it after a time (0: not), and is its
// exit code and what it printed.
func demo(t *testing.T, interrupt time.Duration) (int, string) {
	t.Helper()
	tmp := t.TempDir()
	cmd := exec.Command(filepath.Join(binaries, "quiesced-demo"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if interrupt > 0 {
		// A terminal interrupts every process of the group.
		stop := time.AfterFunc(interrupt, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) })
		defer stop.Stop()
	}
	_ = cmd.Wait()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), tmp) {
		t.Errorf("mounts are left:\n%s", mounts)
	}
	if left, _ := os.ReadDir(tmp); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

func TestDemonstration(t *testing.T) {
	code, out := demo(t, 0)
	if code != 0 || !strings.Contains(out, "records without a gap") || !strings.Contains(out, "nothing is left behind") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// Whoever reads what it prints may go away: "make demo | head".
func TestDemonstrationThatNobodyReadsLeavesNothing(t *testing.T) {
	tmp := t.TempDir()
	cmd := exec.Command("sh", "-c", `"$0" 2>&1 | head -n 1`, filepath.Join(binaries, "quiesced-demo"))
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left, _ := os.ReadDir(tmp); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
}

func TestInterruptedDemonstrationLeavesNothing(t *testing.T) {
	for _, after := range []time.Duration{50, 200, 400, 600, 800, 1000} {
		if code, out := demo(t, after*time.Millisecond); code == 0 && !strings.Contains(out, "nothing is left behind") || code > 1 {
			t.Errorf("interrupted after %d ms: exit code %d\n%s", after, code, out)
		}
	}
}
