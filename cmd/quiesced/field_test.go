package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/guard"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// Somebody thaws what we froze and freezes it for themselves: the snapshot is not
// clean, and their freeze is not thawed.
func TestForeignThawAndFreezeDuringARun(t *testing.T) {
	w, verb := inWindow(t)
	w.must(exec.Command("sh", "-c", `fsfreeze -u "$1" && fsfreeze -f "$1"`, "sh", w.store).Run())
	thaw := exec.Command("sh", "-c", `sleep 4; fsfreeze -u "$1"`, "sh", w.store)
	w.must(thaw.Start())
	time.Sleep(100 * time.Millisecond)
	w.touch("go")
	r := verb()
	report := w.report(r)
	w.mustSay(r, exitFailed, "somebody else thawed")
	if report.Clean || !strings.Contains(report.Reason, "somebody else thawed") || len(report.Thaws) != 1 || report.Thaws[0].State != "lost" {
		t.Errorf("report is %+v", report)
	}
	if all := w.snapshots(); len(all) != 1 || all[0].CID != "snap-1" || all[0].Clean {
		t.Errorf("snapshots are %+v", all)
	}
	if !w.frozen() {
		t.Error("the freeze of somebody else was thawed")
	}
	w.must(thaw.Wait())
	w.mustBeGoing()
}

// A guard that was stopped for the rest of its run wakes up in the next one, and
// must not end that one's freeze.
func TestGuardThatWakesUpInTheNextRun(t *testing.T) {
	w, verb := inWindow(t)
	old := w.guardProcess("cut")
	w.must(old.Signal(syscall.SIGSTOP))
	w.touch("go")
	report := w.report(verb())
	if len(report.Disks) != 1 || report.Disks[0].SnapshotCID != "snap-1" || report.Outcome == "not resumed" {
		t.Errorf("report is %+v", report)
	}
	w.mustBeGoing()
	w.must(os.Remove(filepath.Join(w.dir, "go")))
	w.must(os.Remove(filepath.Join(w.dir, "called")))
	w.script(paused("snap-2"))
	next := w.begin("take-snapshot", "--json", "--id", "next")
	w.eventually("the CPI is called", func() bool { return w.exists("called") })
	_ = old.Signal(syscall.SIGCONT)
	time.Sleep(300 * time.Millisecond)
	if !w.frozen() {
		t.Error("the old guard thawed")
	}
	w.touch("go")
	r := next()
	w.mustSay(r, exitOK)
	if !w.report(r).Clean {
		t.Errorf("report is %+v", w.report(r))
	}
	w.mustBeGoing()
}

// guardProcess is the guard of a run under way.
func (w *world) guardProcess(id string) *os.Process {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, "run", "guard-"+id+".state"))
	w.must(err)
	record, err := guard.ParseRecord(text)
	w.must(err)
	p, err := os.FindProcess(record.Guard.PID)
	w.must(err)
	w.t.Cleanup(func() { _ = p.Release() })
	return p
}

// serveTo runs another daemon, which is expected to end by itself.
func (w *world) serveTo(config string) result {
	w.t.Helper()
	w.must(os.WriteFile(filepath.Join(w.dir, "second.yml"), []byte(config), 0o600))
	cmd := exec.Command("timeout", "10", filepath.Join(binaries, "quiesced"), "serve", "--config", filepath.Join(w.dir, "second.yml"))
	out, _ := cmd.CombinedOutput()
	return result{code: cmd.ProcessState.ExitCode(), err: string(out)}
}

func TestSecondDaemonIsRefusedAndDisturbsNothing(t *testing.T) {
	w, verb := inWindow(t)
	same := mustRead(t, w.config)
	w.mustSay(w.serveTo(same), exitFailed, "cannot listen on", w.dir+"/run/q.sock", "another daemon")
	elsewhere := strings.Replace(same, "/run/q.sock", "/elsewhere/q.sock", 1)
	w.mustSay(w.serveTo(elsewhere), exitFailed, "cannot open the journal", w.dir+"/state", "another daemon")
	if !w.frozen() {
		t.Error("the freeze of the first one was thawed")
	}
	w.touch("go")
	r := verb()
	w.mustSay(r, exitOK)
	if !w.report(r).Clean {
		t.Errorf("report is %+v", w.report(r))
	}
	w.mustSay(w.run("status"), exitOK, "idle")
	w.mustBeGoing()
}

// The daemon would wait for its own log.
func TestLogOnTheDiskIsRefused(t *testing.T) {
	w := newWorld(t)
	w.script(answered("snap-1"))
	log := filepath.Join(w.store, "quiesced.log")
	file, err := os.Create(log)
	w.must(err)
	defer file.Close()
	w.logTo = file
	w.start()
	w.mustSay(w.run("take-snapshot", "--level", "freeze"), exitRefused, log, w.store)
	w.mustSay(w.run("take-snapshot", "--level", "sync"), exitOK)
	w.mustBeGoing()
}

// Nothing can change on a filesystem that is mounted read-only: its snapshot is
// clean without a freeze.
func TestReadOnlyFilesystemNeedsNoFreeze(t *testing.T) {
	w := newWorld(t)
	w.script(answered("snap-1"))
	w.must(syscall.Mount("", w.store, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	w.start()
	r, report := w.take("--level", "freeze")
	w.mustSay(r, exitOK)
	if !report.Clean || len(report.Thaws) != 0 {
		t.Errorf("report is %+v", report)
	}
}

// However often a filesystem is mounted, it is one, and frozen once.
func TestBindMountsAndSubvolumesAreFrozenOnce(t *testing.T) {
	w := newWorld(t)
	w.script(paused("snap-1"))
	fs, err := loopfs.Make(w.dir, "volumes", "btrfs", 128<<20)
	w.must(err)
	t.Cleanup(func() { w.must(fs.Close()) })
	stop, err := loopfs.ThawAfter(fs.Mount, safetyThaw)
	w.must(err)
	t.Cleanup(stop)
	mounts := []string{fs.Mount}
	for _, name := range []string{"a", "b"} {
		w.must(exec.Command("btrfs", "-q", "subvolume", "create", filepath.Join(fs.Mount, name)).Run())
		mounts = append(mounts, w.mountAt("subvolume-"+name, fs.Mount, name))
	}
	mounts = append(mounts, w.mountAt("bound", fs.Mount, ""))
	t.Cleanup(w.end)
	text := strings.Replace(mustRead(t, w.config), "mounts: ["+w.store+"]", "mounts: ["+strings.Join(mounts, ", ")+"]", 1)
	w.must(os.WriteFile(w.config, []byte(text), 0o600))
	w.start()
	verb := w.begin("take-snapshot", "--json")
	w.eventually("the CPI is called", func() bool { return w.exists("called") })
	for _, at := range mounts {
		other := *w
		other.store = at
		if !other.frozen() {
			t.Errorf("%s is not frozen", at)
		}
	}
	w.touch("go")
	r := verb()
	w.mustSay(r, exitOK)
	if report := w.report(r); !report.Clean || len(report.Thaws) != 1 {
		t.Errorf("report is %+v", report)
	}
	other := *w
	other.store = fs.Mount
	other.mustBeGoing()
}

// mountAt mounts a directory of a filesystem a second time.
func (w *world) mountAt(name, fs, directory string) string {
	w.t.Helper()
	at := filepath.Join(w.dir, name)
	w.must(os.Mkdir(at, 0o755))
	w.must(syscall.Mount(filepath.Join(fs, directory), at, "", syscall.MS_BIND, ""))
	w.t.Cleanup(func() { w.must(syscall.Unmount(at, 0)) })
	return at
}
