package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inWindow starts a daemon whose CPI waits for the test, asks for a snapshot and
// returns when the filesystem is frozen and the CPI has been called.
func inWindow(t *testing.T, change ...func(string) string) (*world, func() result) {
	t.Helper()
	w := newWorld(t, change...)
	w.script(paused("snap-1"))
	w.start()
	verb := w.begin("take-snapshot", "--json", "--level", "freeze", "--id", "cut")
	w.eventually("the CPI is called", func() bool { return w.exists("called") })
	if !w.frozen() {
		t.Fatal("the CPI was called and nothing is frozen")
	}
	return w, verb
}

// mustHaveKept asserts what the next daemon knows of the run that was cut off.
func (w *world) mustHaveKept(cause string) {
	w.t.Helper()
	w.eventually("the run is reported", func() bool { return len(w.runs()) == 1 })
	report := w.runs()[0]
	if report.Outcome != "failed" || !report.Recovered || report.Clean || report.ID != "cut" || !strings.Contains(report.Error, "the daemon ended") {
		w.t.Errorf("report is %+v", report)
	}
	if len(report.Thaws) != 1 || report.Thaws[0].Cause != cause || report.Thaws[0].State != "thawed" {
		w.t.Errorf("thaws are %+v, want cause %q", report.Thaws, cause)
	}
	all := w.snapshots()
	if len(all) != 1 || all[0].CID != "snap-1" || all[0].Clean || all[0].State != "known" {
		w.t.Errorf("snapshots are %+v", all)
	}
	w.mustBeGoing()
}

func TestKilledDaemonIsThawedForByTheGuard(t *testing.T) {
	w, verb := inWindow(t)
	w.kill()
	took := w.eventually("the guard thaws", func() bool { return !w.frozen() })
	t.Logf("thawed and seen so %s after the kill", took)
	if r := verb(); r.code != exitUnreachable {
		t.Errorf("the verb ended with %+v", r)
	}
	w.touch("go") // the CPI outlived the daemon and answers now
	w.start()
	w.mustHaveKept("pipe")
	w.mustSay(w.run("delete-snapshot", "snap-1"), exitOK)
}

func TestCPIThatStillRunsIsWaitedForByTheNextDaemon(t *testing.T) {
	w, verb := inWindow(t)
	w.kill()
	verb()
	w.eventually("the guard thaws", func() bool { return !w.frozen() })
	w.start()
	w.mustSay(w.run("take-snapshot"), exitBusy, "busy with run cut")
	w.touch("go")
	w.mustHaveKept("pipe")
}

func TestDaemonAndGuardKilledTogetherAreRecoveredFrom(t *testing.T) {
	w, verb := inWindow(t)
	killAll(t, w)
	verb()
	if !w.frozen() {
		t.Fatal("nobody is left to thaw, and it is not frozen: this test tests nothing")
	}
	w.touch("go")
	w.start()
	w.mustHaveKept("recovered")
}

func TestThawNeedsNoDaemon(t *testing.T) {
	w, verb := inWindow(t)
	killAll(t, w)
	verb()
	w.mustSay(w.run("thaw"), exitOK, "cut", w.store, "thawed", "1 filesystem\n")
	w.mustBeGoing()
	w.mustSay(w.run("thaw"), exitOK, "0 filesystems")
	w.touch("go")
}

// killAll kills the daemon and its guard so that neither sees the other end.
func killAll(t *testing.T, w *world) {
	t.Helper()
	w.signal(syscall.SIGSTOP)
	states, err := filepath.Glob("/proc/[0-9]*/comm")
	w.must(err)
	killed := 0
	for _, comm := range states {
		pid := 0
		if _, err := fmt.Sscanf(comm, "/proc/%d/comm", &pid); err != nil {
			continue
		}
		if w.isGuard(pid) {
			w.must(syscall.Kill(pid, syscall.SIGKILL))
			killed++
		}
	}
	if killed != 1 {
		t.Fatalf("killed %d guards", killed)
	}
	w.kill()
}

// isGuard says whether a process is a guard that this world's daemon started.
func (w *world) isGuard(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || !strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", w.daemon.Process.Pid)) {
		return false
	}
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.HasPrefix(string(command), "quiesced-guard\x00") && !strings.Contains(string(command), "canary")
}

func TestDeadlineThawsOnTimeAndKeepsTheCID(t *testing.T) {
	w := newWorld(t, with("budgets: {frozen: 1s}\n"))
	w.script(paused("snap-1"))
	w.start()
	verb := w.begin("take-snapshot", "--json", "--level", "freeze")
	w.eventually("the CPI is called", func() bool { return w.exists("called") })
	w.eventually("the deadline thaws", func() bool { return !w.frozen() })
	w.touch("go")
	r := verb()
	report := w.report(r)
	w.mustSay(r, exitFailed, "deadline")
	if report.Clean || report.Reached != "sync" || report.Thaws[0].Cause != "deadline" || report.Thaws[0].Frozen < 0.9 || report.Thaws[0].Frozen > 3 {
		t.Errorf("report is %+v", report)
	}
	if all := w.snapshots(); len(all) != 1 || all[0].CID != "snap-1" || all[0].Clean || !strings.Contains(all[0].Note, "deadline") {
		t.Errorf("snapshots are %+v", all)
	}
	w.mustBeGoing()
}

func TestLateSnapshotIsAcceptedWhereDegradingIsAllowed(t *testing.T) {
	w := newWorld(t, with("budgets: {frozen: 500ms}\n"))
	w.script(paused("snap-1"))
	w.start()
	verb := w.begin("take-snapshot", "--json", "--level", "freeze", "--allow-degrade")
	w.eventually("the CPI is called", func() bool { return w.exists("called") })
	w.eventually("the deadline thaws", func() bool { return !w.frozen() })
	w.touch("go")
	r := verb()
	report := w.report(r)
	w.mustSay(r, exitOK)
	if report.Clean || report.Reached != "sync" || report.Outcome != "succeeded" || !strings.Contains(report.Reason, "deadline") {
		t.Errorf("report is %+v", report)
	}
}

func TestStoppedDaemonThawsAndTheNextOneHasTheCID(t *testing.T) {
	w, verb := inWindow(t)
	w.signal(syscall.SIGTERM)
	w.eventually("the filesystem is thawed", func() bool { return !w.frozen() })
	<-w.ended
	w.daemon = nil
	verb()
	w.touch("go")
	w.start()
	w.eventually("the run is reported", func() bool { return len(w.runs()) == 1 })
	if all := w.snapshots(); len(all) != 1 || all[0].CID != "snap-1" || all[0].Clean || !strings.Contains(all[0].Note, "the daemon is stopping") {
		t.Errorf("snapshots are %+v", all)
	}
	report := w.runs()[0]
	if len(report.Thaws) != 1 || report.Thaws[0].Cause != "asked" || report.Seconds["frozen"] <= 0 || !report.Recovered {
		t.Errorf("report is %+v", report)
	}
	w.mustBeGoing()
}

// What is known of a freeze that has ended outlives the daemon, too: a point in
// time that was fixed in it makes the snapshot clean, whatever comes after.
func TestKilledAfterTheFreezeKeepsWhatIsKnownOfIt(t *testing.T) {
	w := newWorld(t, releasing(releasePattern))
	w.script("touch $dir/called\necho \"snapshot 'snap-1' of volume 'disk-1' created\" >&2\nuntil [ -e $dir/go ] || [ ! -e $dir ]; do sleep 0.02; done\n" + answered("snap-1"))
	w.start()
	verb := w.begin("take-snapshot", "--id", "cut")
	w.eventually("the run waits for the CPI alone", func() bool { return strings.Contains(w.run("status").out, "run cut snapshot") })
	w.kill()
	verb()
	w.start()
	w.touch("go")
	w.eventually("the run is reported", func() bool { return len(w.runs()) == 1 })
	report := w.runs()[0]
	if report.Outcome != "failed" || !report.Clean || report.Reached != "freeze" || len(report.Thaws) != 1 || report.Seconds["frozen"] <= 0 {
		t.Errorf("report is %+v", report)
	}
	if all := w.snapshots(); len(all) != 1 || all[0].CID != "snap-1" || !all[0].Clean {
		t.Errorf("snapshots are %+v", all)
	}
	w.mustBeGoing()
}

// A daemon that is stopped by a signal or a debugger beats no more.
func TestHungDaemonIsThawedFor(t *testing.T) {
	w, verb := inWindow(t)
	w.signal(syscall.SIGSTOP)
	w.eventually("the guard thaws", func() bool { return !w.frozen() })
	w.signal(syscall.SIGCONT)
	w.touch("go")
	r := verb()
	report := w.report(r)
	w.mustSay(r, exitFailed, "heartbeat")
	if report.Clean || len(report.Thaws) != 1 || report.Thaws[0].Cause != "heartbeat" {
		t.Errorf("report is %+v", report)
	}
	if all := w.snapshots(); len(all) != 1 || all[0].CID != "snap-1" || all[0].Clean {
		t.Errorf("snapshots are %+v", all)
	}
	w.mustBeGoing()
}

// The daemon may die at any moment of a run, not only while all is frozen.
func TestDaemonKilledAtAnyMoment(t *testing.T) {
	w := newWorld(t)
	w.script("cid=snap-$$\necho $cid >>$dir/made\nsleep 0.05\n" + `printf '{"result":"%s","error":null,"log":""}\n' $cid` + "\n")
	w.start()
	for i := range 20 {
		verb := w.begin("take-snapshot", "--level", "freeze")
		defer verb() // it asks for its task a few times more
		time.Sleep(time.Duration(i) * 8 * time.Millisecond)
		w.kill()
		w.eventually("the filesystem is thawed", func() bool { return !w.frozen() })
		w.start()
		w.eventually("the daemon is idle", func() bool { return strings.Contains(w.run("status").out, "idle") })
		w.mustBeGoing()
	}
	made, _ := os.ReadFile(filepath.Join(w.dir, "made"))
	known := map[string]bool{}
	for _, s := range w.snapshots() {
		known[s.CID] = true
	}
	for _, cid := range strings.Fields(string(made)) {
		if !known[cid] {
			t.Errorf("snapshot %s was made and is not recorded", cid)
		}
	}
	t.Logf("%d snapshots were made in 20 runs that were cut off", len(strings.Fields(string(made))))
}

func TestFullStateDirectory(t *testing.T) {
	w := newWorld(t)
	state := filepath.Join(w.dir, "state")
	w.must(os.Mkdir(state, 0o700))
	w.must(syscall.Mount("tmpfs", state, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { w.must(syscall.Unmount(state, 0)) })
	w.script("head -c 2000000 /dev/zero >$dir/state/filler 2>/dev/null\n" + answered("snap-1"))
	w.start()
	t.Cleanup(w.end)
	r, report := w.take("--level", "freeze") // the CPI fills the disk in the window
	if len(report.Disks) != 1 {
		t.Fatalf("%+v", r)
	}
	w.mustBeGoing()
	all := w.snapshots()
	if len(all) != 1 || all[0].CID != "snap-1" {
		t.Errorf("snapshots are %+v", all)
	}
	w.mustSay(w.run("take-snapshot"), exitRefused, "cannot record the run before it begins")
	w.must(os.Remove(filepath.Join(state, "filler")))
	w.eventually("the run is recorded", func() bool {
		var status struct {
			Unsaved []string `json:"unsaved_runs"`
		}
		w.must(json.Unmarshal([]byte(w.run("status", "--json").out), &status))
		return len(status.Unsaved) == 0
	})
	w.kill()
	w.start()
	if again := w.snapshots(); fmt.Sprint(again) != fmt.Sprint(all) {
		t.Errorf("after a restart snapshots are %+v, before %+v", again, all)
	}
}
