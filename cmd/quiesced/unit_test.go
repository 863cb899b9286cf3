package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/agent/wire"
	"github.com/quiesced/quiesced/quiesce/guard"
	"github.com/quiesced/quiesced/quiesce/systemd/systemdtest"
)

// unitFile is the unit that is packaged.
var unitFile = filepath.Join("..", "..", "packaging", "systemd", "quiesced.service")

// unit is a world whose daemon a systemd runs.
type unit struct {
	*world
	m *systemdtest.Machine
}

// newUnit boots a machine with the programs and the unit installed, and what
// dropIn says for it in a drop-in. change edits the configuration's text.
func newUnit(t *testing.T, dropIn func(*unit) string, change ...func(string) string) *unit {
	t.Helper()
	w := newWorld(t)
	w.script("cid=$(cat $dir/cid)\ntouch $dir/called\nuntil [ -e $dir/go ] || [ ! -e $dir ]; do sleep 0.02; done\n" +
		`printf '{"result":"%s","error":null,"log":""}\n' $cid` + "\n")
	return bootUnit(w, dropIn, change...)
}

// bootUnit does so with a world that is there.
func bootUnit(w *world, dropIn func(*unit) string, change ...func(string) string) *unit {
	w.t.Helper()
	w.configure(append(change, func(text string) string {
		return strings.Replace(text, filepath.Join(w.dir, "run", "q.sock"), "/run/quiesced/quiesced.sock", 1)
	})...)
	u := &unit{world: w}
	u.m = systemdtest.Boot(w.t, w.dir, func(root string) {
		for _, name := range []string{"quiesced", "quiesced-guard"} {
			u.install(root, "/usr/bin/"+name, filepath.Join(binaries, name), 0o755)
		}
		u.install(root, "/etc/quiesced/quiesced.yml", w.config, 0o600)
		u.install(root, "/etc/systemd/system/quiesced.service", unitFile, 0o644)
		extra := filepath.Join(w.dir, "drop-in")
		w.must(os.WriteFile(extra, []byte("[Service]\n"+dropIn(u)), 0o600))
		u.install(root, "/etc/systemd/system/quiesced.service.d/test.conf", extra, 0o644)
	})
	return u
}

func (u *unit) install(root, path, from string, mode os.FileMode) {
	u.t.Helper()
	text, err := os.ReadFile(from)
	u.must(err)
	u.must(os.MkdirAll(filepath.Dir(root+path), 0o755))
	u.must(os.WriteFile(root+path, text, mode))
}

// property is one of the unit's properties.
func (u *unit) property(name string) string {
	u.t.Helper()
	return u.m.Property("quiesced", name)
}

// inWindow has the daemon take a snapshot under an id, and returns in its window.
func (u *unit) inWindow(id string, args ...string) {
	u.t.Helper()
	for _, name := range []string{"called", "go"} {
		u.must(os.RemoveAll(filepath.Join(u.dir, name)))
	}
	u.must(os.WriteFile(filepath.Join(u.dir, "cid"), []byte("snap-"+id), 0o600))
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	verb := u.m.Command(ctx, append([]string{"quiesced", "take-snapshot", "--id", id}, args...)...)
	u.must(verb.Start())
	u.t.Cleanup(func() { _ = verb.Wait(); cancel() })
	u.eventually("the CPI is called", func() bool { return u.exists("called") })
	if !u.frozen() {
		u.t.Fatal("the CPI was called and nothing is frozen")
	}
}

// mustHave asserts that the daemon reports a run that was cut off, with its CID.
func (u *unit) mustHave(id string) {
	u.t.Helper()
	var report wire.Report
	u.eventually("the run is reported", func() bool {
		var all []wire.Report
		out, err := u.m.Run("quiesced", "runs", "--json")
		if err == nil {
			u.must(json.Unmarshal([]byte(out), &all))
		}
		for _, r := range all {
			if r.ID == id {
				report = r
			}
		}
		return report.ID != ""
	})
	if report.Outcome != "failed" || !report.Recovered || report.Clean || len(report.Disks) != 1 || report.Disks[0].SnapshotCID != "snap-"+id {
		u.t.Errorf("report is %+v", report)
	}
	if u.frozen() {
		u.t.Error("the filesystem is frozen")
	}
}

// thawsWithin asserts that the filesystem is thawed in time.
func (u *unit) thawsWithin(limit time.Duration) {
	u.t.Helper()
	took := u.eventually("it is thawed", func() bool { return !u.frozen() })
	u.t.Logf("thawed, and seen so, after %s", took.Round(time.Millisecond))
	if took > limit {
		u.t.Errorf("it was thawed after %s", took)
	}
}

func TestUnit(t *testing.T) {
	u := newUnit(t, func(*unit) string { return "WatchdogSec=3\nRestartSec=200ms\n" })
	u.isWellWritten()
	u.isActiveOnceTheDaemonIsReady()
	u.restartsADaemonThatHangs()
	u.restartsADaemonThatWasKilled()
	u.leavesTheCPIOfADaemonThatIsStoppedToTheNext()
}

func (u *unit) isWellWritten() {
	if out := u.m.Do("systemd-analyze", "verify", "/etc/systemd/system/quiesced.service"); out != "" {
		u.t.Error(out)
	}
	security := strings.Split(u.m.Do("systemd-analyze", "security", "--no-pager", "quiesced.service"), "\n")
	u.t.Log(security[len(security)-1])
}

// The journal, held by somebody else for a moment, delays the daemon's start.
func (u *unit) isActiveOnceTheDaemonIsReady() {
	state := filepath.Join(u.dir, "state")
	u.must(os.MkdirAll(state, 0o700))
	records, err := os.Create(filepath.Join(state, "journal.db"))
	u.must(err)
	u.must(unix.Flock(int(records.Fd()), unix.LOCK_EX))
	u.m.Do("systemctl", "start", "--no-block", "quiesced")
	time.Sleep(500 * time.Millisecond)
	if now := u.property("ActiveState"); now != "activating" {
		u.t.Errorf("the unit is %s and the daemon cannot be ready", now)
	}
	u.must(records.Close())
	u.eventually("the unit is active", func() bool { return u.property("ActiveState") == "active" })
	u.m.Do("quiesced", "status")
	u.eventually("the status is told", func() bool { return u.property("StatusText") == "idle" })
}

func (u *unit) restartsADaemonThatHangs() {
	u.inWindow("hung")
	u.eventually("the phase is told", func() bool { return u.property("StatusText") == "run hung frozen" })
	u.m.Do("kill", "-STOP", u.property("MainPID"))
	u.thawsWithin(3 * time.Second)
	u.eventually("it is restarted", func() bool {
		return u.property("NRestarts") == "1" && u.property("ActiveState") == "active"
	})
	if log := u.m.Do("journalctl", "-u", "quiesced", "--no-pager"); !strings.Contains(log, "Failed with result 'watchdog'") {
		u.t.Errorf("the journal says\n%s", log)
	}
	u.touch("go")
	u.mustHave("hung")
}

func (u *unit) restartsADaemonThatWasKilled() {
	u.inWindow("killed")
	u.m.Do("kill", "-KILL", u.property("MainPID"))
	u.thawsWithin(2 * time.Second)
	u.touch("go")
	u.eventually("it is restarted", func() bool {
		return u.property("NRestarts") == "2" && u.property("ActiveState") == "active"
	})
	u.mustHave("killed")
}

func (u *unit) leavesTheCPIOfADaemonThatIsStoppedToTheNext() {
	u.inWindow("stopped")
	began := time.Now()
	u.m.Do("systemctl", "stop", "quiesced")
	if took := time.Since(began); took > 3*time.Second {
		u.t.Errorf("the stop took %s", took)
	}
	u.thawsWithin(time.Second)
	if !u.cpiRuns() {
		u.t.Error("the CPI is gone")
	}
	u.m.Do("systemctl", "start", "quiesced")
	u.touch("go")
	u.mustHave("stopped")
}

// cpiRuns says whether a process of the CPI's is there.
func (u *unit) cpiRuns() bool {
	u.t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	u.must(err)
	for _, path := range commands {
		if command, _ := os.ReadFile(path); strings.Contains(string(command), u.cpi) {
			return true
		}
	}
	return false
}

// roleEnv makes the test binary something else than a test.
const roleEnv = "QUIESCED_TEST_ROLE"

// playUnkillable is a daemon that has frozen a filesystem, has lost its guard, and
// has a thread that waits for the thaw in the kernel.
func playUnkillable(store string) error {
	binary, err := guard.OpenBinary("/usr/bin/" + guardName)
	if err != nil {
		return err
	}
	target, err := guard.Identify(store)
	if err != nil {
		return err
	}
	ctx := context.Background()
	g, err := guard.Start(ctx, binary, []guard.Filesystem{target}, guard.Options{
		RunID: "unkillable", Dir: "/run/quiesced", Deadline: time.Minute, Heartbeat: time.Minute,
	})
	if err != nil {
		return err
	}
	if err := g.Freeze(ctx); err != nil {
		return err
	}
	if err := syscall.Kill(g.Process().PID, syscall.SIGKILL); err != nil {
		return err
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return err
	}
	return unix.Rmdir(filepath.Join(store, "missing"))
}

// A thread of the daemon that waits for the frozen filesystem keeps even SIGKILL
// waiting. With the guard dead too, nobody but the unit's ExecStopPost thaws.
func TestUnitThawsForADaemonThatNothingEnds(t *testing.T) {
	u := newUnit(t, func(u *unit) string {
		self, err := os.Executable()
		u.must(err)
		u.must(exec.Command("cp", self, filepath.Join(u.dir, "unkillable")).Run())
		return "ExecStart=\nExecStart=" + u.dir + "/unkillable " + u.store + "\nEnvironment=" + roleEnv + "=unkillable\nWatchdogSec=0\n"
	})
	u.m.Do("systemctl", "start", "quiesced")
	if !u.frozen() {
		t.Fatal("nothing is frozen: this test tests nothing")
	}
	began := time.Now()
	u.m.Do("systemctl", "stop", "quiesced")
	took := time.Since(began)
	if u.frozen() {
		t.Error("the unit has stopped and the filesystem is frozen")
	}
	if took < 5*time.Second || took > 14*time.Second {
		t.Errorf("the stop took %s, want a little more than TimeoutStopSec for each of SIGTERM and SIGKILL", took)
	}
	if log := u.m.Do("journalctl", "-u", "quiesced", "--no-pager"); !strings.Contains(log, "recovered") {
		t.Errorf("the journal does not show that ExecStopPost thawed:\n%s", log)
	}
	t.Logf("stopped and thawed after %s", took.Round(time.Millisecond))
}
