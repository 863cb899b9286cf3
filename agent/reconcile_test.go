package agent_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/cpi"
)

// found is a reconciliation in CIDs; an entry without one goes by its run.
type found struct {
	Known, Sized                                 int
	Resolved, Missing, Dropped, Unknown, Adopted []string
}

func names(all []agent.Snapshot) []string {
	var found []string
	for _, s := range all {
		if s.CID == "" {
			s.CID = "of " + s.RunID
		}
		found = append(found, s.CID)
	}
	return found
}

func TestCatalogueIsComparedWithWhatTheCPIHas(t *testing.T) {
	at := func(minute int) time.Time { return time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC) }
	known := func(cid string) agent.Snapshot {
		return agent.Snapshot{CID: cid, RunID: "run-" + cid, DiskCID: "d1", State: agent.SnapshotKnown, Created: at(0)}
	}
	lost := func(run string, minute int) agent.Snapshot {
		return agent.Snapshot{RunID: run, DiskCID: "d1", State: agent.SnapshotUnresolved, Created: at(minute)}
	}
	listed := func(cid string, minute int) cpi.SnapshotInfo {
		return cpi.SnapshotInfo{CID: cid, DiskCID: "d1", Created: at(minute), Size: 10, DiskSize: 100}
	}
	of := func(info cpi.SnapshotInfo, key string, value any) cpi.SnapshotInfo {
		info.Metadata = map[string]any{key: value}
		return info
	}
	other := listed("x", 0)
	other.DiskCID = "d2"
	timeless := listed("y", 0)
	timeless.Created = time.Time{}
	half := known("h")
	half.State = agent.SnapshotDeleting
	sized := known("s")
	sized.Size, sized.DiskSize = 10, 100
	for name, c := range map[string]struct {
		known   []agent.Snapshot
		list    []cpi.SnapshotInfo
		options agent.ReconcileOptions
		want    found
	}{
		"nothing anywhere":                   {want: found{}},
		"both have it, and its size is told": {known: []agent.Snapshot{known("a")}, list: []cpi.SnapshotInfo{listed("a", 0)}, want: found{Known: 1, Sized: 1}},
		"both have it, and all was known":    {known: []agent.Snapshot{sized}, list: []cpi.SnapshotInfo{listed("s", 0)}, want: found{Known: 1}},
		"the CPI does not have it":           {known: []agent.Snapshot{known("a"), half}, want: found{Missing: []string{"a", "h"}}},
		"the CPI does not have it, and it is dropped": {
			known: []agent.Snapshot{known("a"), half, known("b")}, list: []cpi.SnapshotInfo{listed("b", 0)}, options: agent.ReconcileOptions{Drop: true},
			want: found{Known: 1, Sized: 1, Dropped: []string{"a", "h"}},
		},
		"only the CPI has it":                  {list: []cpi.SnapshotInfo{listed("n", 3), listed("m", 1)}, want: found{Unknown: []string{"m", "n"}}},
		"only the CPI has it, it is adopted":   {list: []cpi.SnapshotInfo{listed("n", 3)}, options: agent.ReconcileOptions{Adopt: true}, want: found{Adopted: []string{"n"}}},
		"it is of a disk of somebody else":     {list: []cpi.SnapshotInfo{other}, options: agent.ReconcileOptions{Adopt: true}, want: found{}},
		"it is of another instance":            {list: []cpi.SnapshotInfo{of(listed("n", 3), "instance_id", "inst-2")}, options: agent.ReconcileOptions{Adopt: true}, want: found{}},
		"it is of this instance":               {list: []cpi.SnapshotInfo{of(listed("n", 3), "instance_id", "inst-1")}, want: found{Unknown: []string{"n"}}},
		"it is of this instance as a director": {list: []cpi.SnapshotInfo{of(listed("n", 3), "deployment", "self")}, want: found{Unknown: []string{"n"}}},
		"an unresolved one, made then":         {known: []agent.Snapshot{lost("r", 5)}, list: []cpi.SnapshotInfo{listed("n", 6)}, want: found{Resolved: []string{"n"}}},
		"an unresolved one, made before":       {known: []agent.Snapshot{lost("r", 5)}, list: []cpi.SnapshotInfo{listed("n", 3)}, want: found{Missing: []string{"of r"}, Unknown: []string{"n"}}},
		"an unresolved one, made long after":   {known: []agent.Snapshot{lost("r", 5)}, list: []cpi.SnapshotInfo{listed("n", 40)}, want: found{Missing: []string{"of r"}, Unknown: []string{"n"}}},
		"an unresolved one, and two that may be it": {
			known: []agent.Snapshot{lost("r", 5)}, list: []cpi.SnapshotInfo{listed("n", 6), listed("m", 7)}, options: agent.ReconcileOptions{Drop: true},
			want: found{Missing: []string{"of r"}, Unknown: []string{"n", "m"}},
		},
		"two unresolved, and one that may be either": {
			known: []agent.Snapshot{lost("r", 5), lost("q", 6)}, list: []cpi.SnapshotInfo{listed("n", 7)}, options: agent.ReconcileOptions{Drop: true},
			want: found{Missing: []string{"of r", "of q"}, Unknown: []string{"n"}},
		},
		"two unresolved at different times": {
			known: []agent.Snapshot{lost("r", 5), lost("q", 50)}, list: []cpi.SnapshotInfo{listed("n", 6), listed("m", 51)},
			want: found{Resolved: []string{"n", "m"}},
		},
		"an unresolved one of which there is none, dropped": {
			known: []agent.Snapshot{lost("r", 5)}, options: agent.ReconcileOptions{Drop: true}, want: found{Dropped: []string{"of r"}},
		},
		"an unresolved one, and the CPI tells no time": {
			known: []agent.Snapshot{lost("r", 5)}, list: []cpi.SnapshotInfo{timeless}, options: agent.ReconcileOptions{Drop: true},
			want: found{Missing: []string{"of r"}, Unknown: []string{"y"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, change := agent.Compare(c.known, c.list, agent.Instance{Deployment: "cf", Job: "db", ID: "inst-1"}, 30*time.Minute, c.options)
			if diff := cmp.Diff(c.want, brief(got), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if n := len(change.Gone); n != len(c.want.Dropped) {
				t.Errorf("%d entries are forgotten", n)
			}
		})
	}
}

func brief(r agent.Reconciliation) found {
	f := found{
		Known: r.Known, Sized: r.Sized, Resolved: names(r.Resolved), Missing: names(r.Missing), Dropped: names(r.Dropped), Adopted: names(r.Adopted),
	}
	for _, info := range r.Unknown {
		f.Unknown = append(f.Unknown, info.CID)
	}
	return f
}

func TestWhatIsReconciledIsKept(t *testing.T) {
	in := newInstance(t)
	in.take(agent.LevelNone)
	in.take(agent.LevelNone)
	entry := `{"snapshot_cid":%q,"disk_cid":"disk-1","created_at":"2026-01-01T00:00:00Z","size":4096,"metadata":{"director_name":%q}}`
	in.Answer(t, "list_snapshots", `{"result":[`+fmt.Sprintf(entry, "snap-2", "")+","+fmt.Sprintf(entry, "snap-d", "bosh")+`],"error":null,"log":""}`)
	r, err := in.Agent.Reconcile(t.Context(), agent.ReconcileOptions{Adopt: true, Drop: true, By: "uid 0"})
	in.must(err)
	if want := (found{Known: 1, Sized: 1, Dropped: []string{"snap-1"}, Adopted: []string{"snap-d"}}); !cmp.Equal(want, brief(r), cmpopts.EquateEmpty()) {
		t.Errorf("found %+v", brief(r))
	}
	in.Restart(t)
	all := snapshots(t, in.Agent)
	if s := all["snap-d"]; len(all) != 2 || all["snap-2"].Size != 4096 || !s.Held || s.Clean || s.By != "uid 0" {
		t.Errorf("known are %+v", all)
	}
	cids := []string{}
	deleted, err := in.Agent.Delete(t.Context(), "snap-d")
	in.must(err)
	cids = append(cids, deleted.CIDs...)
	if !slices.Equal(cids, []string{"snap-d"}) {
		t.Errorf("deleted %v", cids)
	}
}

func TestCPIThatCannotListIsNothingToCompareWith(t *testing.T) {
	in := newInstance(t)
	in.take(agent.LevelNone)
	in.Answer(t, "list_snapshots", `{"result":null,"error":{"type":"Bosh::Clouds::NotImplemented","message":"list_snapshots","ok_to_retry":false},"log":""}`)
	_, err := in.Agent.Reconcile(t.Context(), agent.ReconcileOptions{Drop: true})
	if err == nil || !strings.Contains(err.Error(), "cannot list snapshots") || len(snapshots(t, in.Agent)) != 1 {
		t.Errorf("got %v", err)
	}
}
