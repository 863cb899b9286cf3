package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// secondDisk gives the world another disk, of a type, mounted beside the first.
func (w *world) secondDisk(fstype string, size int64) string {
	w.t.Helper()
	other, err := loopfs.Make(w.dir, "other", fstype, size)
	w.must(err)
	w.t.Cleanup(func() { w.must(other.Close()) })
	stop, err := loopfs.ThawAfter(other.Mount, safetyThaw)
	w.must(err)
	w.t.Cleanup(stop)
	w.t.Cleanup(w.end)
	text, err := os.ReadFile(w.config)
	w.must(err)
	text = bytes.Replace(text, []byte("/store]}]"), []byte("/store]}, {cid: disk-2, mounts: ["+other.Mount+"]}]"), 1)
	w.must(os.WriteFile(w.config, text, 0o600))
	return other.Mount
}

// perDisk answers with a CID made of the disk's, and keeps the test waiting for
// disk-2 until the file "go" is there.
const perDisk = `case "$request" in
*'["disk-2",'*) disk=disk-2; touch $dir/called; until [ -e $dir/go ] || [ ! -e $dir ]; do sleep 0.02; done;;
*) disk=disk-1;;
esac
`

func TestDisksOfEveryTypeAreFrozenTogether(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fstype, func(t *testing.T) {
			w := newWorld(t)
			w.script(perDisk + `echo '{"result":"snap-of-'$disk'","error":null,"log":""}'` + "\n")
			second := w.secondDisk(fstype, loopfs.MinXFS)
			w.start()
			verb := w.begin("take-snapshot", "--json")
			w.eventually("the CPI is called", func() bool { return w.exists("called") })
			other := *w
			other.store = second
			if !w.frozen() || !other.frozen() {
				t.Error("a disk is not frozen while another one's snapshot is taken")
			}
			w.touch("go")
			r := verb()
			report := w.report(r)
			w.mustSay(r, exitOK)
			if !report.Clean || len(report.Disks) != 2 || len(report.Thaws) != 2 || report.Disks[1].SnapshotCID != "snap-of-disk-2" {
				t.Errorf("report is %+v", report)
			}
			w.mustBeGoing()
			other.mustBeGoing()
		})
	}
}

func TestOneDiskFailingLosesNothingOfTheOther(t *testing.T) {
	w := newWorld(t)
	w.script(perDisk + `[ $disk = disk-1 ] && echo '{"result":"snap-1","error":null,"log":""}' && exit
echo '{"result":null,"error":{"type":"Bosh::Clouds::CloudError","message":"quota","ok_to_retry":false},"log":""}'` + "\n")
	w.secondDisk("ext4", 32<<20)
	w.touch("go")
	w.start()
	r, report := w.take()
	w.mustSay(r, exitFailed, "disk-2", "quota")
	if len(report.Disks) != 2 || report.Disks[0].SnapshotCID != "snap-1" || !report.Disks[0].Clean || report.Clean {
		t.Errorf("report is %+v", report)
	}
	if all := w.snapshots(); len(all) != 1 || all[0].CID != "snap-1" {
		t.Errorf("snapshots are %+v", all)
	}
	w.mustSay(w.run("take-snapshot", "--disk", "disk-2", "--disk", "disk-2"), exitRefused, `disk "disk-2" is named twice`)
}

func TestOnlyTheDiskWhoseCPIOverranIsSaidToHave(t *testing.T) {
	w := newWorld(t)
	w.script(`case "$request" in *'["disk-2",'*) sleep 60;; esac
echo '{"result":null,"error":{"type":"Bosh::Clouds::CloudError","message":"quota","ok_to_retry":false},"log":""}'` + "\n")
	w.secondDisk("ext4", 32<<20)
	text := mustRead(t, w.config) + "budgets: {snapshot: 1s}\n"
	w.must(os.WriteFile(w.config, []byte(text), 0o600))
	w.start()
	r, report := w.take()
	w.mustSay(r, exitFailed, "quota", "budgets.snapshot (1s)")
	if n := strings.Count(report.Error, "took longer"); n != 1 || len(report.Disks) != 2 || report.Disks[0].Unresolved || !report.Disks[1].Unresolved {
		t.Errorf("report is %+v", report)
	}
	w.mustBeGoing()
}

func TestFreezeOfSomebodyElseIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.script("touch $dir/called\n" + answered("snap-1"))
	w.start()
	thaw := exec.Command("sh", "-c", `fsfreeze -f "$1" && sleep 4; fsfreeze -u "$1"`, "sh", w.store)
	w.must(thaw.Start())
	w.eventually("somebody froze it", w.frozen)
	r, report := w.take("--level", "freeze")
	w.mustSay(r, exitFailed, w.store, "frozen")
	if report.Clean || w.exists("called") {
		t.Errorf("report is %+v", report)
	}
	if !w.frozen() {
		t.Error("the freeze of somebody else was thawed")
	}
	w.must(thaw.Wait())
	w.mustBeGoing()
	w.mustSay(w.run("take-snapshot"), exitOK)
}

func TestDeletionThatFailsCanBeRepeated(t *testing.T) {
	w := newWorld(t)
	w.script(answered("snap-1"))
	w.touch("broken")
	w.start()
	w.mustSay(w.run("take-snapshot"), exitOK)
	w.mustSay(w.run("delete-snapshot", "snap-1"), exitFailed, `cannot delete snapshot "snap-1"`, "in use")
	if all := w.snapshots(); len(all) != 1 || all[0].State != "deleting" {
		t.Errorf("snapshots are %+v", all)
	}
	w.mustSay(w.run("delete-snapshots", "--yes"), exitFailed, "in use")
	w.mustSay(w.run("delete-snapshots", "--yes", "--json"), exitFailed, `{"exception":{`, `"kind":"failed"`)
	w.must(os.Remove(filepath.Join(w.dir, "broken")))
	w.mustSay(w.run("delete-snapshots", "--yes"), exitOK) // unless the daemon was faster
	if all := w.snapshots(); len(all) != 0 {
		t.Errorf("snapshots are %+v", all)
	}
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestNoSignalIsIgnoredInTheCPI(t *testing.T) {
	w := newWorld(t)
	w.script("grep SigIgn /proc/self/status >$dir/ignored\n" + answered("snap-1"))
	w.start()
	w.mustSay(w.run("take-snapshot"), exitOK)
	without, err := exec.Command("grep", "SigIgn", "/proc/self/status").Output()
	w.must(err)
	if got := mustRead(t, filepath.Join(w.dir, "ignored")); got != string(without) {
		t.Errorf("the CPI ignores signals %q, and a program without a daemon %q", got, without)
	}
}

// A slow start of the CPI's interpreter is no part of the pause.
func TestStartingTheCPIIsNotInTheWindow(t *testing.T) {
	w := newWorld(t)
	w.cpi = filepath.Join(w.dir, "cpi")
	w.must(writeProgram(w.cpi, "#!/bin/sh\nsleep 0.7\n"+strings.TrimPrefix(atOnce, "#!/bin/sh\n")))
	w.start()
	_, report := w.take()
	if !report.Clean || report.Seconds["prepare"] < 0.7 || report.Seconds["frozen"] > 0.5 {
		t.Errorf("report is %+v", report)
	}
}

func TestStatusShowsThePhase(t *testing.T) {
	w, verb := inWindow(t)
	began := time.Now()
	w.mustSay(w.run("status"), exitOK, "run cut frozen, for", "db/0 inst-1")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("status took %s in the window", took)
	}
	w.touch("go")
	w.mustSay(verb(), exitOK)
	w.mustSay(w.run("status"), exitOK, "idle", "cut succeeded", "clean")
}
