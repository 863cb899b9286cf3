package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/httpapi"
	"github.com/quiesced/quiesced/agent/wire"
)

// image is where local-cpi has a snapshot's data.
func (w *world) image(cid string) string { return filepath.Join(w.root, "snapshots", cid+".img") }

func TestDeletingShowsAndAsksFirst(t *testing.T) {
	w := newWorld(t)
	w.start()
	var cids []string
	for _, level := range []string{"none", "freeze", "none"} {
		_, report := w.take("--level", level)
		cids = append(cids, report.Disks[0].SnapshotCID)
	}
	refused := w.run("delete-snapshots", "--dirty")
	w.mustSay(refused, exitUsage, cids[0], cids[2], "Delete these 2 snapshots? [yN]", "nothing was deleted")
	if strings.Contains(refused.out, cids[1]) || len(w.snapshots()) != 3 {
		t.Errorf("shown is more than what would go, or it went: %s", refused.out)
	}
	w.mustSay(w.told("no\n", "delete-snapshots"), exitUsage, "nothing was deleted")
	w.mustSay(w.told("y\n", "delete-snapshots", "--dirty", "--sort", "created", "--reverse", "--limit", "1"), exitOK, "Deleted snapshot "+cids[2], "1 snapshot\n")
	quiet := w.told("yes\n", "delete-snapshots", "--level", "none", "--json")
	w.mustSay(quiet, exitOK, `"deleted": [`, cids[0])
	if !strings.HasPrefix(quiet.out, "{") || !strings.Contains(quiet.err, "[yN]") {
		t.Errorf("asked with --json on stdout: %q, and on stderr: %q", quiet.out, quiet.err)
	}
	w.mustSay(w.run("delete-snapshots", "--older-than", "1h", "--yes"), exitOK, "0 snapshots")
	if _, err := os.Stat(w.image(cids[1])); err != nil {
		t.Errorf("the image that is left: %v", err)
	}
	w.must(os.Remove(w.image(cids[1])))
	w.mustSay(w.run("delete-snapshot", cids[1]), exitOK, "Dropped snapshot "+cids[1]+": it was not there any more")
	w.mustSay(w.run("delete-snapshots"), exitOK, "0 snapshots")
}

func TestSnapshotsAreShownByWhatIsKnownOfThem(t *testing.T) {
	w := newWorld(t)
	w.start()
	_, report := w.take("--level", "freeze")
	cid := report.Disks[0].SnapshotCID
	w.mustSay(w.run("snapshots"), exitOK, "By", "Verified", "Disk Size", cid, "32 MiB", "uid 0")
	w.mustSay(w.run("snapshots", "--clean", "--since", "2026-01-01T00:00:00Z", "--state", "known", "--disk", w.cid), exitOK, cid)
	w.mustSay(w.run("snapshots", "--dirty"), exitOK, "0 snapshots")
	w.mustSay(w.run("snapshots", "--verified"), exitOK, "0 snapshots")
	for _, c := range [][]string{
		{"--trigger", "hand"}, {"--level", "deep"}, {"--state", "lost"}, {"--sort", "beauty"}, {"--limit", "-1"}, {"--limit", "x"},
		{"--older-than", "long"}, {"--older-than", "-3d"}, {"--since", "yesterday"}, {"--until", "2026"}, {"--clean", "--dirty"}, {"--verified", "--unverified"},
	} {
		w.mustSay(w.run(append([]string{"snapshots"}, c...)...), exitUsage, c[0])
		w.mustSay(w.run(append([]string{"delete-snapshots", "--yes"}, c...)...), exitUsage, c[0])
	}
	if n := len(w.snapshots()); n != 1 {
		t.Errorf("%d snapshots are left", n)
	}
}

// hold takes a snapshot as a director does: the daemon holds, somebody else takes it.
func (w *world) hold(cid string) {
	w.t.Helper()
	client := api.Client{Caller: httpapi.NewClient(filepath.Join(w.dir, "run", "q.sock"))}
	_, err := client.Quiesce(w.t.Context(), agent.Request{ID: "hold-" + cid, Level: agent.LevelFreeze, Disks: []string{w.cid}, Lease: time.Minute, Wait: true})
	w.must(err)
	_, err = client.Resume(w.t.Context(), "hold-"+cid, wire.HoldEnd{Snapshots: map[string]string{w.cid: cid}})
	w.must(err)
}

func TestDirectorsSnapshotIsDeletedOnlyWhenItIsMeant(t *testing.T) {
	w := newWorld(t)
	w.script("exit 1\n")
	w.start()
	w.hold("snap-7")
	w.eventually("the hold is over", func() bool { return len(w.runs()) == 1 })
	w.mustSay(w.run("delete-snapshots", "--yes"), exitOK, "Left 1 that the director's database owns", "0 snapshots")
	w.mustSay(w.run("delete-snapshot", "snap-7"), exitUsage, "The director's database owns snapshot snap-7", "nothing was deleted")
	if all := w.snapshots(); len(all) != 1 || !all[0].Held {
		t.Errorf("snapshots are %+v", all)
	}
	w.mustSay(w.told("y\n", "delete-snapshot", "snap-7"), exitOK, "Deleted snapshot snap-7")
}

func TestSizesAreShownInTheUnitThatSuitsThem(t *testing.T) {
	for bytes, want := range map[int64]string{
		0: "", 1: "1 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 32 << 20: "32 MiB", 5 << 40: "5 TiB", 1<<60 + 1<<59: "1536 PiB",
	} {
		if got := size(bytes); got != want {
			t.Errorf("%d bytes: %q, want %q", bytes, got, want)
		}
	}
}

func TestCatalogueIsReconciledWithTheLocalCPI(t *testing.T) {
	w := newWorld(t)
	w.start()
	_, first := w.take("--level", "none")
	_, second := w.take("--level", "none")
	lost, kept := first.Disks[0].SnapshotCID, second.Disks[0].SnapshotCID
	w.mustSay(w.run("reconcile"), exitOK, "Known        2 to both; the sizes of 2 were not known before")
	w.mustSay(w.run("snapshots", "--sort", "size"), exitOK, "MiB")
	w.must(os.Remove(w.image(lost)))
	w.mustSay(w.run("reconcile"), exitOK, "Known        1 to both", "Not there    "+lost)
	w.mustSay(w.run("reconcile", "--drop"), exitUsage, "Forget these 1 snapshots", lost)
	w.mustSay(w.run("reconcile", "--drop", "--yes"), exitOK, "Dropped      "+lost)
	w.kill()
	w.must(os.RemoveAll(filepath.Join(w.dir, "state")))
	w.start()
	w.mustSay(w.run("reconcile"), exitOK, "Known        0 to both", "Not in list  "+kept)
	w.mustSay(w.run("reconcile", "--adopt", "--json"), exitOK, `"adopted": [`, kept)
	if all := w.snapshots(); len(all) != 1 || all[0].CID != kept || all[0].DiskSize != 32<<20 {
		t.Errorf("known are %+v", all)
	}
	w.mustSay(w.run("delete-snapshot", kept), exitOK, "Deleted")
}
