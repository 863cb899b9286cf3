package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/wire"
)

// images are the snapshots that are really there, as the CPI keeps them.
func (w *world) images() []string {
	w.t.Helper()
	found, err := filepath.Glob(w.image("*"))
	w.must(err)
	slices.Sort(found)
	return found
}

// retention is what apply-retention --json says.
func (w *world) retention(args ...string) (r wire.Retention) {
	w.t.Helper()
	done := w.run(append([]string{"apply-retention", "--json"}, args...)...)
	w.mustSay(done, exitOK)
	w.must(json.Unmarshal([]byte(done.out), &r))
	return r
}

// reconfigure starts the daemon anew with more configuration.
func (w *world) reconfigure(lines string) {
	w.t.Helper()
	w.end()
	w.configure(with(lines))
	w.start()
}

func TestRetentionIsShownThenAppliedByHandAndBySchedule(t *testing.T) {
	w := newWorld(t)
	w.start()
	var cids []string
	for _, level := range []string{"none", "freeze", "none", "none"} {
		_, report := w.take("--level", level)
		cids = append(cids, report.Disks[0].SnapshotCID)
	}
	w.mustSay(w.run("apply-retention"), exitOK, "no policy is configured (keep): all snapshots stay", "nothing goes")

	w.reconfigure("keep: {last: 2}\n")
	w.mustSay(w.run("apply-retention", "--dry-run"), exitOK, "Verdict", "Why", cids[0], "no count keeps it", "the newest clean one", "among the last 2", "3 stays, 1 goes")
	planned := w.retention("--dry-run")
	for i, want := range []string{"goes", "stays", "stays", "stays"} {
		if got := planned.Snapshots[i]; got.CID != cids[i] || got.Verdict != want || got.Why == "" || got.DiskCID != w.cid {
			t.Errorf("decided of snapshot %d: %+v", i, got)
		}
	}
	if n := len(w.images()); n != 4 {
		t.Fatalf("after dry runs %d images are left", n)
	}
	if done := w.retention(); len(done.Snapshots) != 1 || done.Snapshots[0].CID != cids[0] || done.Snapshots[0].Verdict != "deleted" {
		t.Errorf("done is %+v", done)
	}
	if left := w.images(); len(left) != 3 || slices.Contains(left, w.image(cids[0])) {
		t.Errorf("left are %q", left)
	}
	w.mustSay(w.run("apply-retention"), exitOK, "nothing goes")
	w.mustSay(w.run("status"), exitOK, "Retention  1 deleted, 0 failed, last applied 20")

	w.reconfigure("keep: {max_age: 1s, schedule: \"" + everySecond + "\"}\n")
	w.eventually("the newest clean one alone is left", func() bool { return slices.Equal(w.images(), []string{w.image(cids[1])}) })
	w.eventually("it is counted", func() bool {
		var s api.Status
		w.must(json.Unmarshal([]byte(w.run("status", "--json").out), &s))
		return s.Retention.Deleted == 2 && s.Retention.Last != nil
	})
}

func TestRetentionWhoseDeletionsFailIsAFailure(t *testing.T) {
	w := newWorld(t)
	w.script(`echo '{"result":"snap-'$$'","error":null,"log":""}'`)
	w.start()
	w.take("--level", "none")
	w.take("--level", "none")
	w.reconfigure("keep: {last: 1}\n")
	w.touch("broken")
	w.mustSay(w.run("apply-retention"), exitFailed, "failed", "in use", "1 failed")
	if all := w.snapshots(); len(all) != 2 || all[0].State != "deleting" || all[1].State != "known" {
		t.Errorf("the snapshots are %+v", all)
	}
	w.must(os.Remove(filepath.Join(w.dir, "broken")))
	w.reconfigure("keep: {last: 1}\n")
	w.eventually("the next daemon tries it again", func() bool { return len(w.snapshots()) == 1 })
}

func TestCheckConfigSaysWhyRetentionDeletesNothing(t *testing.T) {
	c := defaults()
	c.Keep.Last, c.EnableSnapshots, c.CPI.Path = 3, true, "/cpi"
	if note := c.retentionNote(); note != "" {
		t.Errorf("it says %q of a policy that works", note)
	}
	w := newWorld(t, with("keep: {last: 3}\n"), func(text string) string {
		at := slices.IndexFunc([]byte(text), func(b byte) bool { return b == '\n' })
		return "enable_snapshots: false" + text[at:]
	})
	w.mustSay(w.run("check-config"), exitOK, "keep deletes nothing while enable_snapshots is false")
	c.CPI.Path = ""
	if note := c.retentionNote(); note == "" {
		t.Error("it says nothing of a policy without a CPI")
	}
}
