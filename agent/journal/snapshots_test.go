package journal_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/journal"
)

// snapshot is one that a run took of disk-1 at a second.
func snapshot(run string, second int) agent.Snapshot {
	return agent.Snapshot{
		CID: "snap-" + run, RunID: "run-" + run, DiskCID: "disk-1", State: agent.SnapshotKnown, Created: time.Unix(int64(second), 0).UTC(),
	}
}

func wantSnapshots(t testing.TB, j *journal.Journal, want ...agent.Snapshot) {
	t.Helper()
	got, err := j.Snapshots()
	must(t, err)
	slices.SortFunc(got, func(a, b agent.Snapshot) int { return a.Created.Compare(b.Created) })
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestChangesOfTheCatalogueAreThereAfterReopening(t *testing.T) {
	dir := t.TempDir()
	unresolved := agent.Snapshot{RunID: "run-x", DiskCID: "disk/1", State: agent.SnapshotUnresolved, Created: time.Unix(3, 0).UTC()}
	adopted := agent.Snapshot{CID: "snap-0", DiskCID: "disk-1", State: agent.SnapshotKnown, Created: time.Unix(4, 0).UTC()}
	verified := snapshot("a", 1)
	verified.Verified = &agent.Verification{Time: time.Unix(9, 0).UTC(), OK: true, How: "e2fsck"}
	resolved := unresolved
	resolved.CID, resolved.State = "snap-x", agent.SnapshotKnown
	for _, step := range []struct {
		name   string
		change agent.Change
		want   []agent.Snapshot
	}{
		{"none", agent.Change{}, nil},
		{"two that are new", agent.Change{Snapshots: []agent.Snapshot{snapshot("b", 2), snapshot("a", 1)}}, []agent.Snapshot{snapshot("a", 1), snapshot("b", 2)}},
		{"one without a CID and one without a run", agent.Change{Snapshots: []agent.Snapshot{unresolved, adopted}},
			[]agent.Snapshot{snapshot("a", 1), snapshot("b", 2), unresolved, adopted}},
		{"one in place of another, one with its CID, and one forgotten", agent.Change{Snapshots: []agent.Snapshot{verified, resolved}, Gone: []agent.SnapshotKey{snapshot("b", 2).Key()}},
			[]agent.Snapshot{verified, resolved, adopted}},
		{"one forgotten that is not there", agent.Change{Gone: []agent.SnapshotKey{"run-b/disk-1", "nobody"}}, []agent.Snapshot{verified, resolved, adopted}},
	} {
		t.Run(step.name, func(t *testing.T) {
			j, err := journal.Open(dir)
			must(t, err)
			must(t, j.Write(step.change))
			wantSnapshots(t, j, step.want...)
			must(t, j.Close())
			j, err = journal.Open(dir)
			must(t, err)
			wantSnapshots(t, j, step.want...)
			must(t, j.Close())
		})
	}
}

func TestJournalKeepsItsIDAndSharesItWithNone(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(dir)
	must(t, err)
	first := j.ID()
	must(t, j.Close())
	if again := open(t, dir).ID(); again != first || first == "" {
		t.Errorf("it is %q, and was %q", again, first)
	}
	if other := open(t, t.TempDir()).ID(); other == first {
		t.Errorf("two journals have the id %q", other)
	}
}

// A run's record has no id here, which the database refuses after it took the rest.
func TestChangeIsWrittenAsAWholeOrNotAtAll(t *testing.T) {
	j := open(t, t.TempDir())
	must(t, j.Write(agent.Change{Records: []agent.Record{ended("a", 1)}, Snapshots: []agent.Snapshot{snapshot("a", 1)}}))
	err := j.Write(agent.Change{
		Records:   []agent.Record{ended("b", 2), ended("", 2)},
		Snapshots: []agent.Snapshot{snapshot("b", 2)},
		Gone:      []agent.SnapshotKey{snapshot("a", 1).Key()},
	})
	if err == nil {
		t.Error("a record without an id is taken")
	}
	wantIDs(t, j, "a")
	wantSnapshots(t, j, snapshot("a", 1))
}

func TestSnapshotsOutliveTheirRuns(t *testing.T) {
	j := open(t, t.TempDir())
	j.NoSync()
	must(t, j.Write(agent.Change{Records: []agent.Record{ended("run-a", 1)}, Snapshots: []agent.Snapshot{snapshot("a", 1)}}))
	for i := range journal.Keep {
		must(t, put(j, ended("run-"+time.Duration(i).String(), 10+i)))
	}
	if _, there, err := j.Get("run-a"); there || err != nil {
		t.Errorf("the run is there: %t, %v", there, err)
	}
	wantSnapshots(t, j, snapshot("a", 1))
}
