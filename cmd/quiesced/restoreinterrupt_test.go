package main

import (
	"os"
	"path/filepath"
	"testing"
)

// An operator who interrupts the verb before the daemon has answered means the restore.
func TestARestoreThatIsInterruptedBeforeItsAnswerIsCancelled(t *testing.T) {
	w := newWorld(t)
	w.cpi = filepath.Join(w.dir, "cpi")
	w.must(os.WriteFile(w.cpi, []byte(`#!/bin/sh
request=$(cat)
case "$request" in
*'"arguments":["",""]'*) # it is asked what it can do: for the plan, and when the restore begins
	if [ -e `+w.dir+`/planned ]; then
		touch `+w.dir+`/called
		until [ -e `+w.dir+`/go ] || [ ! -e `+w.dir+` ]; do sleep 0.01; done
	fi
	touch `+w.dir+`/planned;;
esac
printf %s "$request" | `+filepath.Join(binaries, "local-cpi")), 0o700))
	w.start()
	w.must(os.WriteFile(filepath.Join(w.store, "old"), nil, 0o600))
	_, taken := w.take()
	w.must(os.WriteFile(filepath.Join(w.store, "new"), nil, 0o600))
	verb := w.begin("restore", taken.Disks[0].SnapshotCID, "--yes", "--json")
	w.eventually("the restore begins", func() bool { return w.exists("called") })
	w.interrupt("restore")
	w.touch("go")
	r := verb()
	w.mustSay(r, exitFailed, "the run was cancelled")
	if report := w.report(r); report.Outcome != "cancelled" || report.Restore.Side != "before" {
		t.Errorf("the report is %+v", report)
	}
	if !w.exists("store/new") {
		t.Error("the disk was restored all the same")
	}
	w.mustBeGoing()
}
