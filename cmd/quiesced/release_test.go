package main

import (
	"strings"
	"testing"
)

const releasePattern = "  release_on_stderr: \"snapshot '[^']+' of volume '{disk_cid}' created\"\n"

// releasing puts a key into the CPI's part of the configuration.
func releasing(line string) func(string) string {
	return func(text string) string {
		text = strings.Replace(text, "cpi: {path: ", "cpi:\n"+line+"  path: ", 1)
		return strings.Replace(text, ", context: {", "\n  context: {", 1)[:len(text)-1] + "\n"
	}
}

// A CPI that goes on for long after the point in time is fixed does not keep the
// application waiting, and its snapshot is clean.
func TestFreezeEndsAtThePointInTime(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"as a line of stderr says", "touch $dir/called\necho \"snapshot 'snap-1' of volume 'disk-1' created\" >&2\nuntil [ -e $dir/go ] || [ ! -e $dir ]; do sleep 0.02; done\n" + answered("snap-1")},
		{"as its answer is there", "touch $dir/called\n" + answered("snap-1") + "until [ -e $dir/go ] || [ ! -e $dir ]; do sleep 0.02; done\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, releasing(releasePattern))
			w.script(tt.script)
			w.start()
			verb := w.begin("take-snapshot", "--json", "--level", "freeze")
			w.eventually("the CPI is called", func() bool { return w.exists("called") })
			w.eventually("the filesystem is thawed", func() bool { return !w.frozen() })
			w.mustSay(w.run("status"), exitOK, "snapshot, for")
			w.touch("go")
			r := verb()
			report := w.report(r)
			w.mustSay(r, exitOK)
			if !report.Clean || report.Reached != "freeze" || report.Thaws[0].Cause != "asked" {
				t.Errorf("report is %+v", report)
			}
			if all := w.snapshots(); len(all) != 1 || all[0].CID != "snap-1" || !all[0].Clean {
				t.Errorf("snapshots are %+v", all)
			}
		})
	}
}

// A tag cannot end the freeze: the pattern is bound to the disk.
func TestLineAboutAnotherDiskReleasesNothing(t *testing.T) {
	w := newWorld(t, releasing(releasePattern))
	w.script("echo \"snapshot 'snap-1' of volume 'disk-2' created\" >&2\n" + paused("snap-1"))
	w.start()
	verb := w.begin("take-snapshot", "--json")
	w.eventually("the CPI is called", func() bool { return w.exists("called") })
	if !w.frozen() {
		t.Error("the freeze ended")
	}
	w.touch("go")
	w.mustSay(verb(), exitOK)
}

func TestCPIThatFreezesByItselfFindsNothingFrozen(t *testing.T) {
	w := newWorld(t, releasing("  freezes_itself: true\n"))
	w.script(paused("snap-1"))
	w.start()
	w.mustSay(w.run("take-snapshot", "--dry-run"), exitOK, "the CPI freezes by itself")
	verb := w.begin("take-snapshot", "--json", "--level", "freeze")
	w.eventually("the CPI is called", func() bool { return w.exists("called") })
	if w.frozen() {
		t.Error("it is frozen all the same")
	}
	w.touch("go")
	r := verb()
	report := w.report(r)
	w.mustSay(r, exitOK)
	if !report.Clean || report.Reached != "freeze" || len(report.Thaws) != 0 || report.Seconds["pre_sync"] == 0 {
		t.Errorf("report is %+v", report)
	}
}
