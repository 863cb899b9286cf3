package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// copying has the catalogue copied, which changes the disk: most tests do without.
func copying(text string) string {
	return strings.Replace(text, "catalogue: {copy: false}", "catalogue: {copy: true}", 1)
}

// copied waits until the copy on the disk has these CIDs, or has them no more.
func (w *world) copied(cid string, there bool) {
	w.t.Helper()
	w.eventually("the catalogue is copied", func() bool {
		text, err := os.ReadFile(filepath.Join(w.store, "quiesced", "snapshots.json"))
		return err == nil && strings.Contains(string(text), `"`+cid+`"`) == there
	})
}

func TestSnapshotsOutliveTheLossOfTheStateDirectory(t *testing.T) {
	w := newWorld(t, copying)
	w.start()
	_, report := w.take("--level", "freeze")
	cid := report.Disks[0].SnapshotCID
	w.copied(cid, true)
	w.kill()
	w.must(os.RemoveAll(filepath.Join(w.dir, "state")))
	w.start()
	all := w.snapshots()
	if len(all) != 1 || all[0].CID != cid || !all[0].Clean || all[0].RunID != report.ID || !strings.Contains(all[0].Note, "found in the catalogue's copy") {
		t.Fatalf("known are %+v", all)
	}
	w.mustSay(w.run("take-snapshot", "--id", report.ID), exitRefused, "was used for the run that took snapshot", cid)
	w.mustSay(w.run("delete-snapshot", cid), exitOK, "Deleted snapshot "+cid)
	w.copied(cid, false)
	if _, err := os.Stat(w.image(cid)); !os.IsNotExist(err) {
		t.Errorf("the image is still there: %v", err)
	}
	w.kill()
	w.must(os.RemoveAll(filepath.Join(w.dir, "state")))
	w.start()
	if all := w.snapshots(); len(all) != 0 {
		t.Errorf("what was deleted is known again: %+v", all)
	}
}

// Somebody else freezes the disk: a child of the daemon's sleeps with it, not the daemon.
func TestDiskThatSomebodyFrozeHoldsUpItsCopyAlone(t *testing.T) {
	w := newWorld(t, copying)
	w.script(answered("snap-1"))
	w.start()
	if out, err := exec.Command("fsfreeze", "-f", w.store).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.mustSay(w.run("take-snapshot", "--level", "none"), exitOK)
	w.eventually("a child is at work on the disk", w.childAtWork)
	w.mustSay(w.run("status"), exitOK)
	w.mustSay(w.run("take-snapshot", "--level", "freeze"), exitRefused, "which was to keep the catalogue's copy on", w.store, "does not end")
	w.mustSay(w.run("delete-snapshot", "snap-1"), exitOK)
	if out, err := exec.Command("fsfreeze", "-u", w.store).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.eventually("a run can freeze again", func() bool { return w.run("take-snapshot", "--level", "freeze").code == exitOK })
}

// As a disk is after an error.
func TestCopyOnADiskThatIsReadOnlyIsToldOf(t *testing.T) {
	t.Parallel()
	w := newWorld(t, copying)
	w.script(answered("snap-1"))
	w.start()
	w.must(exec.Command("mount", "-o", "remount,ro", w.store).Run())
	w.mustSay(w.run("take-snapshot", "--level", "none"), exitOK)
	w.eventually("the status tells of the copy", func() bool {
		return strings.Contains(w.run("status").out, "is not current: cannot write the catalogue's copy on")
	})
	w.mustSay(w.run("snapshots"), exitOK, "snap-1")
}

// childAtWork says whether a child of a daemon is at work on the disk.
func (w *world) childAtWork() bool {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	w.must(err)
	for _, line := range lines {
		text, _ := os.ReadFile(line)
		if words := strings.Split(string(text), "\x00"); slices.Contains(words, diskCopy) && slices.Contains(words, w.store) {
			return true
		}
	}
	return false
}

func TestCatalogueIsNotCopiedWhereThatIsNotWanted(t *testing.T) {
	c := defaults()
	if c.copies() == nil {
		t.Error("by default it is not copied")
	}
	c.Catalogue.Copy = false
	if got := c.copies(); got != nil {
		t.Errorf("it is copied by %v", got)
	}
}
