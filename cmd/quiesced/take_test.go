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

	"github.com/quiesced/quiesced/agent/wire"
)

func TestFreezeOfARealDiskIsClean(t *testing.T) {
	w := newWorld(t)
	w.start()
	r, report := w.take("--level", "freeze", "--id", "first")
	w.mustSay(r, exitOK)
	if !report.Clean || report.Reached != "freeze" || report.Outcome != "succeeded" || report.ID != "first" {
		t.Errorf("report is %+v", report)
	}
	if len(report.Thaws) != 1 || report.Thaws[0].Cause != "asked" || report.Thaws[0].State != "thawed" || report.Thaws[0].Frozen <= 0 {
		t.Errorf("thaws are %+v", report.Thaws)
	}
	if len(report.Metrics) == 0 || report.Seconds["frozen"] <= 0 {
		t.Errorf("metrics %v, seconds %v", report.Metrics, report.Seconds)
	}
	all := w.snapshots()
	if len(all) != 1 || all[0].CID != report.Disks[0].SnapshotCID || !all[0].Clean || all[0].UUID != "inst-1" || all[0].DiskCID != "disk-1" {
		t.Errorf("snapshots are %+v", all)
	}
	if _, err := os.Stat(filepath.Join(w.root, "snapshots", all[0].CID+".img")); err != nil {
		t.Error(err)
	}
	w.mustBeGoing()
}

func TestLesserLevelsAreNotClean(t *testing.T) {
	w := newWorld(t)
	w.start()
	for _, level := range []string{"none", "sync"} {
		r, report := w.take("--level", level)
		w.mustSay(r, exitOK)
		if report.Clean || report.Reached != level || len(report.Thaws) != 0 || report.Reason == "" {
			t.Errorf("level %s: report is %+v", level, report)
		}
	}
	w.mustBeGoing()
}

func TestSameIDNeverMakesASecondSnapshot(t *testing.T) {
	w := newWorld(t)
	w.script("echo x >>$dir/calls\n" + paused("snap-1"))
	w.start()
	first := w.begin("take-snapshot", "--json", "--id", "same")
	w.eventually("the CPI is called", func() bool { return w.exists("called") })
	joined := w.begin("take-snapshot", "--json", "--id", "same")
	time.Sleep(200 * time.Millisecond)
	w.touch("go")
	a, b := w.report(first()), w.report(joined())
	w.end()
	w.start()
	_, c := w.take("--id", "same")
	for _, r := range []wire.Report{a, b, c} {
		if len(r.Disks) != 1 || r.Disks[0].SnapshotCID != "snap-1" {
			t.Errorf("report is %+v", r)
		}
	}
	calls, err := os.ReadFile(filepath.Join(w.dir, "calls"))
	w.must(err)
	if string(calls) != "x\n" || len(w.snapshots()) != 1 {
		t.Errorf("the CPI was called %q, snapshots %+v", calls, w.snapshots())
	}
	other := w.run("take-snapshot", "--id", "same", "--level", "none")
	w.mustSay(other, exitRefused, `"same" was used for another request`)
}

func TestSecondRequestIsToldWhatIsRunningOrWaits(t *testing.T) {
	w := newWorld(t)
	w.script("cid=snap-$$\ntouch $dir/called\nuntil [ -e $dir/go ] || [ ! -e $dir ]; do sleep 0.02; done\n" +
		`printf '{"result":"%s","error":null,"log":""}\n' $cid` + "\n")
	w.start()
	first := w.begin("take-snapshot", "--id", "holds")
	w.eventually("the CPI is called", func() bool { return w.exists("called") })
	w.mustSay(w.run("take-snapshot"), exitBusy, "busy with run holds (frozen) since")
	w.mustSay(w.run("delete-snapshots", "--yes"), exitBusy, "busy with run holds")
	waiting := w.begin("take-snapshot", "--wait", "--id", "waits")
	time.Sleep(100 * time.Millisecond)
	w.touch("go")
	w.mustSay(first(), exitOK, "Succeeded")
	w.mustSay(waiting(), exitOK, "Succeeded")
	if n := len(w.snapshots()); n != 2 {
		t.Errorf("%d snapshots", n)
	}
	w.mustBeGoing()
}

func TestDisabledTouchesNothing(t *testing.T) {
	w := newWorld(t, func(text string) string { return strings.Replace(text, "enable_snapshots: true\n", "", 1) })
	w.script("touch $dir/called\n" + answered("snap-1"))
	w.start()
	r, report := w.take("--level", "freeze")
	w.mustSay(r, exitOK)
	if report.Outcome != "disabled" || len(report.Disks) != 0 || w.exists("called") {
		t.Errorf("report is %+v", report)
	}
	w.mustSay(w.run("take-snapshot"), exitOK, "Snapshots are disabled")
	if out := strings.TrimSpace(w.run("snapshots", "--json").out); out != "[]" {
		t.Errorf("snapshots are %s", out)
	}
	if n := len(w.runs()); n != 0 {
		t.Errorf("%d runs are recorded", n)
	}
}

func TestDryRunShowsThePlanAndDoesNothing(t *testing.T) {
	w := newWorld(t)
	w.script("touch $dir/called\n" + answered("snap-1"))
	w.start()
	w.mustSay(w.run("take-snapshot", "--dry-run"), exitOK, "freeze", w.store, "thaw", "nothing was done")
	var plan wire.Plan
	w.must(json.Unmarshal([]byte(w.run("take-snapshot", "--dry-run", "--json").out), &plan))
	var kinds []string
	for _, a := range plan.Actions {
		kinds = append(kinds, a.Kind)
	}
	if got := strings.Join(kinds, ", "); got != "start CPI, write out, freeze, snapshot" {
		t.Errorf("actions are %s", got)
	}
	if w.exists("called") || len(w.runs()) != 0 {
		t.Error("something was done")
	}
}

// Every way in which a CPI can misbehave ends with a clear error, the filesystem
// thawed, and every CID that was made on record.
func TestMisbehavingCPI(t *testing.T) {
	errorAnswer := func(kind string) string {
		return `echo '{"result":null,"error":{"type":"` + kind + `","message":"no luck today","ok_to_retry":false},"log":""}'` + "\n"
	}
	type want struct {
		code       int
		texts      []string
		cids       []string
		unresolved int
	}
	tests := []struct {
		name, script string
		want         want
	}{
		{"prints nothing", "exit 0\n", want{exitFailed, []string{"disk-1", "it is empty"}, nil, 1}},
		{"prints garbage", "echo Traceback: no\n", want{exitFailed, []string{"disk-1", "Traceback: no"}, nil, 1}},
		{"prints two documents", answered("snap-1") + answered("snap-2"), want{exitFailed, []string{"disk-1", "snap-1"}, nil, 1}},
		{"answers an empty CID", answered(""), want{exitFailed, []string{"disk-1", "CID"}, nil, 1}},
		{"answers a number", `echo '{"result":7,"error":null,"log":""}'` + "\n", want{exitFailed, []string{"disk-1"}, nil, 1}},
		{"exits 3 with a good answer", answered("snap-1") + "exit 3\n", want{exitOK, nil, []string{"snap-1"}, 0}},
		{"is killed by a signal", "kill -9 $$\n", want{exitFailed, []string{"disk-1"}, nil, 1}},
		{"leaves a child that holds its pipes", "sleep 5 &\n" + answered("snap-1"), want{exitOK, nil, []string{"snap-1"}, 0}},
		{"is stopped", "kill -STOP $$\n", want{exitFailed, []string{"disk-1", "budgets.snapshot (2s)"}, nil, 1}},
		{"hangs past its deadline", "sleep 60\n", want{exitFailed, []string{"disk-1", "budgets.snapshot (2s)"}, nil, 1}},
		{"hangs after its answer", answered("snap-1") + "sleep 60\n", want{exitOK, nil, []string{"snap-1"}, 0}},
		{"answers an unknown type of error", errorAnswer("Bosh::Clouds::Weird"), want{exitFailed, []string{"UnknownError", "no luck today"}, nil, 0}},
	}
	for _, kind := range []string{"CpiError", "NotSupported", "NotImplemented", "CloudError", "VMNotFound", "NetworkNotFound", "NoDiskSpace", "DiskNotAttached", "DiskNotFound", "VMCreationFailed"} {
		tests = append(tests, struct {
			name, script string
			want         want
		}{"answers " + kind, errorAnswer("Bosh::Clouds::" + kind), want{exitFailed, []string{"disk-1", kind, "no luck today"}, nil, 0}})
	}
	w := newWorld(t, with("budgets: {snapshot: 2s}\n"))
	w.script("")
	w.start()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w.t = t
			w.script(test.script)
			before := w.snapshots()
			r, report := w.take("--level", "freeze")
			w.mustSay(r, test.want.code, test.want.texts...)
			w.mustBeGoing()
			var cids []string
			unresolved := 0
			for _, s := range w.snapshots()[len(before):] {
				if s.State == "unresolved" {
					unresolved++
					continue
				}
				cids = append(cids, s.CID)
			}
			if fmt.Sprint(cids) != fmt.Sprint(test.want.cids) || unresolved != test.want.unresolved {
				t.Errorf("recorded %q and %d unresolved; report %+v", cids, unresolved, report)
			}
			w.run("delete-snapshots", "--yes")
		})
	}
	w.t = t
}

func TestRepeatedCIDIsRefusedAndRecorded(t *testing.T) {
	w := newWorld(t)
	w.script(answered("snap-1"))
	w.start()
	w.mustSay(w.run("take-snapshot"), exitOK)
	w.mustSay(w.run("take-snapshot"), exitFailed, `"snap-1"`, `disk "disk-1"`)
	all := w.snapshots()
	if len(all) != 2 || all[0].CID != "snap-1" || all[1].State != "unresolved" || !strings.Contains(all[1].Note, "snap-1") {
		t.Errorf("snapshots are %+v", all)
	}
	w.mustBeGoing()
}

func TestRequestsThatAreRefusedTouchNothing(t *testing.T) {
	w := newWorld(t)
	w.script("touch $dir/called\n" + answered("snap-1"))
	w.start()
	for _, test := range []struct {
		name string
		args []string
		code int
		text string
	}{
		{"unknown level", []string{"--level", "frozen"}, exitRefused, `level: unknown level "frozen"`},
		{"level without a supervisor", []string{"--level", "stop"}, exitRefused, `cannot reach level "stop"`},
		{"unknown disk", []string{"--disk", "disk-9"}, exitRefused, `disks[0]: unknown disk "disk-9": this instance has "disk-1"`},
		{"unknown job", []string{"web"}, exitRefused, `unknown job "web": this instance is db/inst-1`},
		{"unknown index", []string{"db/7"}, exitRefused, `unknown instance "db/7"`},
		{"unusable id", []string{"--id", "a/b"}, exitRefused, `id: "a/b" is not usable`},
		{"unknown flag", []string{"--depth", "sync"}, exitUsage, "unknown flag: --depth"},
		{"two instances", []string{"db", "web"}, exitUsage, "accepts at most 1 arg"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.t = t
			w.mustSay(w.run(append([]string{"take-snapshot"}, test.args...)...), test.code, test.text)
		})
	}
	w.t = t
	w.mustSay(w.run("delete-snapshot", "snap-9"), exitRefused, `unknown snapshot "snap-9"`)
	w.mustSay(w.run("delete-snapshot"), exitUsage, "accepts 1 arg")
	w.mustSay(w.run("frobnicate"), exitUsage, `unknown command "frobnicate"`)
	if w.exists("called") || len(w.runs()) != 0 {
		t.Error("something was done")
	}
}

func TestUnusableCPIIsNamed(t *testing.T) {
	w := newWorld(t)
	w.cpi = filepath.Join(w.dir, "nowhere")
	w.start()
	w.mustSay(w.run("take-snapshot"), exitRefused, w.cpi)
	w.mustSay(w.run("check-config"), exitUsage, "cpi.path", w.cpi)
	w.must(os.WriteFile(w.cpi, []byte("#!/bin/sh\n"), 0o600))
	w.mustSay(w.run("take-snapshot"), exitRefused, w.cpi, "permission denied")
	w.mustBeGoing()
}

func TestDaemonThatWouldWaitForItselfIsRefused(t *testing.T) {
	w := newWorld(t, func(text string) string { return strings.Replace(text, "/state\n", "/store/state\n", 1) })
	w.start()
	state := filepath.Join(w.store, "state")
	w.mustSay(w.run("take-snapshot", "--level", "freeze"), exitRefused, "state_dir", state, w.store)
	w.mustSay(w.run("check-config"), exitUsage, "disks[0]", state)
	w.mustSay(w.run("take-snapshot", "--level", "sync"), exitOK)
	w.mustBeGoing()
}

func TestMountThatIsNotThereIsNamed(t *testing.T) {
	w := newWorld(t, func(text string) string { return strings.Replace(text, "/store]", "/stores]", 1) })
	w.start()
	w.mustSay(w.run("take-snapshot"), exitRefused, `mount "`+w.store+`s" of disk "disk-1": it does not exist`)
	w.must(os.Mkdir(w.store+"s", 0o700))
	w.mustSay(w.run("take-snapshot"), exitRefused, "nothing is mounted there")
}

func TestVerbsWithoutADaemonSayWhereTheyLooked(t *testing.T) {
	w := newWorld(t)
	for _, verb := range []string{"status", "snapshots", "runs", "take-snapshot"} {
		w.mustSay(w.run(verb), exitUnreachable, "no daemon answers on "+w.dir+"/run/q.sock")
	}
	for _, verb := range []string{"status", "thaw"} {
		cmd := exec.Command(filepath.Join(binaries, "quiesced"), verb, "--config", w.dir+"/typo.yml")
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != exitUsage || !strings.Contains(string(out), "typo.yml") {
			t.Errorf("%s with a configuration that is not there: exit code %d\n%s", verb, cmd.ProcessState.ExitCode(), out)
		}
	}
	w.mustSay(w.run("version"), exitOK, "quiesced, version")
	w.mustSay(w.run("thaw"), exitOK, "0 filesystems")
	w.mustSay(w.run("completion", "bash"), exitOK, "bash completion")
}

func TestInterruptCancelsAndResumes(t *testing.T) {
	w := newWorld(t)
	w.script(paused("snap-1"))
	w.start()
	verb := w.begin("take-snapshot", "--json", "--id", "cut")
	w.eventually("the CPI is called", func() bool { return w.exists("called") })
	if !w.frozen() {
		t.Fatal("the CPI was called and nothing is frozen")
	}
	w.interrupt("take-snapshot")
	w.eventually("the filesystem is thawed", func() bool { return !w.frozen() })
	w.touch("go")
	r := verb()
	w.mustSay(r, exitFailed, "the run was cancelled")
	report := w.report(r)
	if report.Outcome != "cancelled" || report.Clean {
		t.Errorf("report is %+v", report)
	}
	all := w.snapshots()
	if len(all) != 1 || all[0].CID != "snap-1" || all[0].Clean {
		t.Errorf("the CID is lost: %+v", all)
	}
	w.mustBeGoing()
}

// interrupt sends SIGINT to the verb that has the argument, as a terminal does.
func (w *world) interrupt(verb string) {
	w.t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	w.must(err)
	for _, entry := range entries {
		text, err := os.ReadFile(entry)
		if err != nil || !strings.Contains(string(text), "\x00"+verb+"\x00") || !strings.Contains(string(text), w.config) {
			continue
		}
		var pid int
		_, err = fmt.Sscanf(entry, "/proc/%d/", &pid)
		w.must(err)
		w.must(syscall.Kill(pid, syscall.SIGINT))
		return
	}
	w.t.Fatalf("no %s is running", verb)
}
