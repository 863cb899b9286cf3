package agent_test

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/journal"
	"github.com/quiesced/quiesced/quiesce/jobs"
)

// brokenJournal takes nothing while its disk is full.
type brokenJournal struct {
	agent.Journal
	full atomic.Bool
}

var errFull = errors.New("no space left on device")

func (j *brokenJournal) Write(c agent.Change) error {
	if j.full.Load() {
		return errFull
	}
	return j.Journal.Write(c)
}

// breakable puts a journal that can be broken in place of the daemon's.
func breakable(d *apitest.Daemon) *brokenJournal {
	j := &brokenJournal{Journal: d.Agent.Journal}
	d.Agent.Journal = j
	return j
}

// snapshots is the catalogue by CIDs.
func snapshots(t testing.TB, a *agent.Agent) map[string]agent.Snapshot {
	t.Helper()
	all, err := a.Snapshots()
	if err != nil {
		t.Fatal(err)
	}
	byCID := map[string]agent.Snapshot{}
	for _, s := range all {
		byCID[s.CID] = s
	}
	return byCID
}

func TestSnapshotsOfARunThatCannotBeRecordedAreKnownAndRecordedLater(t *testing.T) {
	in := newInstance(t)
	j := breakable(in.Daemon)
	in.Hold(t, "snapshot_disk")
	run, err := in.Agent.Take(t.Context(), agent.Request{ID: "run-1", Level: agent.LevelNone})
	in.must(err)
	in.AwaitCall(t, "snapshot_disk", 1)
	apitest.Eventually(t, "what is about to be done is recorded", func() bool { return run.Phase() == agent.PhaseSnapshot })
	j.full.Store(true)
	in.Release(t, "snapshot_disk")
	<-run.Done()
	status, err := in.Agent.Status()
	in.must(err)
	if len(snapshots(t, in.Agent)) != 1 || status.Snapshots != 1 || !slices.Equal(status.Unsaved, []string{"run-1"}) || status.Last.ID != "run-1" {
		t.Errorf("snapshots: %v; status: %+v", snapshots(t, in.Agent), status)
	}
	if err := in.Agent.SetVerified("snap-1", agent.Verification{}); !errors.Is(err, errFull) {
		t.Errorf("verified: %v", err)
	}
	j.full.Store(false)
	in.must(in.Agent.SetVerified("snap-1", agent.Verification{OK: true})) // with which goes what was left
	status, err = in.Agent.Status()
	in.must(err)
	if len(status.Unsaved) != 0 {
		t.Errorf("not recorded: %q", status.Unsaved)
	}
	want := snapshots(t, in.Agent)
	in.Restart(t)
	if diff := cmp.Diff(want, snapshots(t, in.Agent)); diff != "" {
		t.Errorf("after a restart, -want +got:\n%s", diff)
	}
	if again, err := in.Agent.Find("run-1"); err != nil || again.Started().IsZero() {
		t.Errorf("the run is not found: %v", err)
	}
}

func TestSnapshotTellsWhatWasAskedForAndWhoOwnsItAndHowLargeItsDiskIs(t *testing.T) {
	in := newInstance(t)
	in.sup.forget() // level stop cannot be reached
	run, err := in.Agent.Take(t.Context(), agent.Request{ID: "run-1", Level: agent.LevelStop, AllowDegrade: true})
	in.must(err)
	<-run.Done()
	in.sup.set("running", "db", "proxy")
	in.hold("hold-1", apitest.DiskCID)
	in.resume("hold-1", apitest.DiskCID)
	in.idle()
	all := snapshots(t, in.Agent)
	if s := all["snap-1"]; s.Asked != agent.LevelStop || s.Level != agent.LevelFreeze || s.Held || s.DiskSize != 16<<20 || s.Verified != nil {
		t.Errorf("of the run: %+v", s)
	}
	if s := all["snap of disk-1"]; s.Asked != agent.LevelStop || s.Level != agent.LevelStop || !s.Held || s.DiskSize != 16<<20 {
		t.Errorf("of the hold: %+v", s)
	}
}

func TestVerificationIsKeptAndOnlyOfASnapshotThatIsKnown(t *testing.T) {
	in := newInstance(t)
	in.take(agent.LevelNone)
	v := agent.Verification{Time: time.Unix(1, 0).UTC(), OK: true, How: "e2fsck", Result: "clean"}
	in.must(in.Agent.SetVerified("snap-1", agent.Verification{How: "an earlier one"}))
	in.must(in.Agent.SetVerified("snap-1", v))
	var unknown *agent.UnknownSnapshotError
	for _, cid := range []string{"snap-9", ""} {
		if err := in.Agent.SetVerified(cid, v); !errors.As(err, &unknown) || unknown.CID != cid {
			t.Errorf("of %q: %v", cid, err)
		}
	}
	in.Restart(t)
	if diff := cmp.Diff(&v, snapshots(t, in.Agent)["snap-1"].Verified); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A run is forgotten long before its snapshots. Its id must not be used again: a second
// snapshot would take the place of the first.
func TestIDOfAForgottenRunIsRefusedWhileItsSnapshotsAreKnown(t *testing.T) {
	in := newInstance(t)
	s := agent.Snapshot{CID: "snap-old", RunID: "run-1", DiskCID: apitest.DiskCID, State: agent.SnapshotKnown}
	in.must(in.Agent.Journal.Write(agent.Change{Snapshots: []agent.Snapshot{s}}))
	in.Restart(t)
	_, err := in.Agent.Take(t.Context(), agent.Request{ID: "run-1", Level: agent.LevelNone})
	var refused *agent.RefusedError
	if !errors.As(err, &refused) || refused.Field != "id" || len(in.Calls(t, "snapshot_disk")) > 0 {
		t.Errorf("got %v", err)
	}
	_, err = in.Agent.Delete(t.Context(), "snap-old")
	in.must(err)
	run, err := in.Agent.Take(t.Context(), agent.Request{ID: "run-1", Level: agent.LevelNone})
	in.must(err)
	<-run.Done()
}

// thousands is an agent whose catalogue has so many snapshots.
func thousands(t testing.TB, n int) *agent.Agent {
	t.Helper()
	dir := t.TempDir()
	j, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	var c agent.Change
	for i := range n {
		c.Snapshots = append(c.Snapshots, agent.Snapshot{
			CID: cid(i), RunID: fmt.Sprintf("run-%d", i), DiskCID: "disk-1", State: agent.SnapshotKnown,
			Created: time.Unix(int64(i), 0), Level: agent.LevelFreeze, Trigger: agent.TriggerScheduled,
		})
	}
	if err := j.Write(c); err != nil {
		t.Fatal(err)
	}
	a := agent.New(agent.Parts{Journal: j, Scratch: journal.ScratchFile{Path: dir + "/verification"}, Supervised: agent.Supervised{Scripts: &jobs.Runner{}, Held: journal.HeldFile{Path: dir + "/held"}}, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(a.Close)
	if err := a.Recover(nil, nil); err != nil {
		t.Fatal(err)
	}
	return a
}

func cid(i int) string { return fmt.Sprintf("snap-%05d", i) }

func TestCatalogueOfTenThousandIsInOrderAndDoesNotGrow(t *testing.T) {
	a := thousands(t, 10_000)
	use := func() uint64 {
		for i := range 100 {
			if err := a.SetVerified(cid(i*97), agent.Verification{OK: true}); err != nil {
				t.Fatal(err)
			}
			all, _ := a.Snapshots()
			at := func(i int) string { return all[i].CID }
			if len(all) != 10_000 || at(0) != cid(0) || at(5000) != cid(5000) || at(9999) != cid(9999) {
				t.Fatalf("%d snapshots, from %s to %s", len(all), at(0), at(9999))
			}
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	first := use()
	use()
	if last := use(); last > first+first/4 {
		t.Errorf("%d bytes are in use, %d were at first", last, first)
	}
}

func BenchmarkCatalogueOfTenThousand(b *testing.B) {
	a := thousands(b, 10_000)
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			if all, err := a.Snapshots(); err != nil || len(all) != 10_000 {
				b.Fatal(len(all), err)
			}
		}
	})
	b.Run("status", func(b *testing.B) {
		for b.Loop() {
			if s, err := a.Status(); err != nil || s.Snapshots != 10_000 {
				b.Fatal(s, err)
			}
		}
	})
	b.Run("change one", func(b *testing.B) {
		for b.Loop() {
			if err := a.SetVerified(cid(5000), agent.Verification{OK: true}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
