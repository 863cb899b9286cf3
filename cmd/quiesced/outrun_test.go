package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// throttle limits what a filesystem's device takes, in bytes per second, until
// the test's end.
func throttle(w *world, bytesPerSecond int) {
	w.t.Helper()
	var st unix.Stat_t
	w.must(unix.Stat(w.store, &st))
	device := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	file := filepath.Join(blkio(w), "blkio.throttle.write_bps_device")
	limit := func(n int) { w.must(os.WriteFile(file, fmt.Appendf(nil, "%s %d", device, n), 0)) }
	limit(bytesPerSecond)
	w.t.Cleanup(func() { limit(0) })
}

// blkio is where the controller of block devices is mounted. Only that of cgroup
// version 1 limits everybody; where it is not in use yet, it is mounted.
func blkio(w *world) string {
	w.t.Helper()
	dir := "/sys/fs/cgroup/blkio"
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	dir = filepath.Join(w.dir, "blkio")
	w.must(os.Mkdir(dir, 0o700))
	w.must(unix.Mount("cgroup", dir, "cgroup", 0, "blkio"))
	w.t.Cleanup(func() { w.must(unix.Unmount(dir, 0)) })
	return dir
}

// A writer that dirties four times as much as the disk takes does not keep a run
// from its end, and the report tells of it.
func TestWriterThatOutrunsTheDiskIsReported(t *testing.T) {
	w := newWorld(t, with("budgets: {pre_sync: 30s, frozen: 30s}\n"))
	w.script(answered("snap-1"))
	w.start()
	throttle(w, 8<<20)
	writer := exec.Command("sh", "-c", `while dd if=/dev/zero of="$1/load" bs=1M count=8 conv=notrunc status=none; do sleep 0.25; done`, "sh", w.store)
	writer.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	w.must(writer.Start())
	t.Cleanup(func() { _ = syscall.Kill(-writer.Process.Pid, syscall.SIGKILL); _ = writer.Wait() })
	time.Sleep(500 * time.Millisecond)
	r, report := w.take("--level", "freeze")
	if r.code != exitOK || !report.Clean || !strings.Contains(strings.Join(report.Notes, " "), "faster than the disk takes it") {
		t.Errorf("exit code %d, report %+v\n%s", r.code, report, r.err)
	}
	w.mustBeGoing()
}

// A disk that takes nothing in time fails the run before anything is frozen.
func TestDiskThatIsTooSlowFailsTheRunBeforeTheFreeze(t *testing.T) {
	w := newWorld(t, with("budgets: {pre_sync: 1s}\n"))
	w.script("touch $dir/called\n" + answered("snap-1"))
	w.start()
	throttle(w, 2<<20)
	w.must(os.WriteFile(filepath.Join(w.store, "load"), make([]byte, 16<<20), 0o600))
	r, report := w.take("--level", "freeze")
	w.mustSay(r, exitFailed, "writing out took longer than budgets.pre_sync (1s)")
	if len(report.Thaws) != 0 || w.exists("called") {
		t.Errorf("report %+v, the CPI was called: %t", report, w.exists("called"))
	}
	var status struct{ Work string }
	w.must(json.Unmarshal([]byte(w.run("status", "--json").out), &status))
	if status.Work != "" {
		t.Errorf("it is still at %q", status.Work)
	}
}
