package api_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/wire"
)

func testSnapshotKeys(t *testing.T, _ *apitest.Daemon, c api.Client) {
	id, err := c.Take(t.Context(), agent.Request{ID: "run-1"})
	no(t, err)
	report(t, c, id)
	value, err := c.Caller.Call(t.Context(), "snapshots")
	no(t, err)
	var all []map[string]any
	no(t, json.Unmarshal(value, &all))
	if len(all) != 1 {
		t.Fatalf("%d snapshots", len(all))
	}
	keys := []string{
		"by", "clean", "created_at", "disk_cid", "index", "job", "level", "level_asked", "note", "run_id", "snapshot_cid", "state", "trigger", "uuid",
	}
	same(t, keys, slices.Sorted(maps.Keys(all[0])))
	for key, want := range map[string]any{
		"job": "db", "index": 2.0, "uuid": "inst-1", "snapshot_cid": "snap-1", "clean": false, "disk_cid": apitest.DiskCID, "run_id": "run-1",
	} {
		same(t, want, all[0][key])
	}
}

func testDelete(t *testing.T, d *apitest.Daemon, c api.Client) {
	take(t, c)
	take(t, c)
	remove(t, c, "snap-1")
	all, err := c.Snapshots(t.Context())
	no(t, err)
	if len(all) != 1 || all[0].CID != "snap-2" {
		t.Errorf("left are %+v", all)
	}
	if calls := d.Calls(t, "delete_snapshot"); len(calls) != 1 || !strings.Contains(calls[0], `"arguments":["snap-1"]`) {
		t.Errorf("the CPI got %q", calls)
	}
}

func deletes(t *testing.T, c api.Client, cid string) error {
	t.Helper()
	_, err := c.Delete(t.Context(), cid)
	return err
}

func remove(t *testing.T, c api.Client, cid string) {
	t.Helper()
	deleted, err := c.Delete(t.Context(), cid)
	no(t, err)
	same(t, api.Deleted{CIDs: []string{cid}}, deleted)
}

const goneError = `{"result":null,"error":{"type":"Unknown","message":"The snapshot 'snap-1' does not exist.","ok_to_retry":false},"log":""}`

func testDeleteGone(t *testing.T, d *apitest.Daemon, c api.Client) {
	take(t, c)
	d.Answer(t, "delete_snapshot", goneError)
	deleted, err := c.Delete(t.Context(), "snap-1")
	no(t, err)
	same(t, api.Deleted{CIDs: []string{"snap-1"}, Gone: []string{"snap-1"}}, deleted)
	all, err := c.Snapshots(t.Context())
	no(t, err)
	same(t, []wire.Snapshot{}, all)
}

func testDeleteUnknown(t *testing.T, d *apitest.Daemon, c api.Client) {
	fails(t, deletes(t, c, "snap-9"), api.KindNotFound, `unknown snapshot "snap-9"`)
	fails(t, deletes(t, c, ""), api.KindNotFound, `unknown snapshot ""`)
	if n := len(d.Calls(t, "delete_snapshot")); n != 0 {
		t.Errorf("the CPI was asked %d times", n)
	}
}

const cloudError = `{"result":null,"error":{"type":"Bosh::Clouds::CloudError","message":"no quota left","ok_to_retry":false},"log":""}`

func testDeleteFails(t *testing.T, d *apitest.Daemon, c api.Client) {
	take(t, c)
	d.Answer(t, "delete_snapshot", cloudError)
	fails(t, deletes(t, c, "snap-1"), api.KindFailed, "no quota left")
	all, err := c.Snapshots(t.Context())
	no(t, err)
	if len(all) != 1 || all[0].State != "deleting" {
		t.Errorf("left are %+v", all)
	}
	d.Answer(t, "delete_snapshot", "")
	remove(t, c, "snap-1")
}

func testDeleteAll(t *testing.T, _ *apitest.Daemon, c api.Client) {
	none, err := c.DeleteAll(t.Context(), agent.Selection{})
	no(t, err)
	same(t, api.Deleted{CIDs: []string{}}, none)
	for range 3 {
		take(t, c)
	}
	newest, err := c.DeleteAll(t.Context(), agent.Selection{Reverse: true, Limit: 1})
	no(t, err)
	same(t, api.Deleted{CIDs: []string{"snap-3"}}, newest)
	deleted, err := c.DeleteAll(t.Context(), agent.Selection{})
	no(t, err)
	same(t, api.Deleted{CIDs: []string{"snap-1", "snap-2"}}, deleted)
	left, err := c.Snapshots(t.Context())
	no(t, err)
	same(t, []wire.Snapshot{}, left)
}

func testSelect(t *testing.T, _ *apitest.Daemon, c api.Client) {
	take(t, c)
	take(t, c)
	yes := true
	for _, test := range []struct {
		which agent.Selection
		want  []string
	}{
		{agent.Selection{Reverse: true}, []string{"snap-2", "snap-1"}},
		{agent.Selection{CIDs: []string{"snap-2", "snap-9"}}, []string{"snap-2"}},
		{agent.Selection{Clean: &yes}, nil},
		{agent.Selection{Trigger: agent.TriggerManual, Level: agent.LevelNone, State: agent.SnapshotKnown, DiskCID: apitest.DiskCID, Limit: 1}, []string{"snap-1"}},
		{agent.Selection{Since: time.Now().Add(time.Hour)}, nil},
		{agent.Selection{Until: time.Now().Add(time.Hour), Older: time.Hour}, nil},
	} {
		var got []string
		all, err := c.Select(t.Context(), test.which)
		no(t, err)
		for _, s := range all {
			got = append(got, s.CID)
		}
		same(t, test.want, got)
	}
	for field, argument := range map[string]any{
		"trigger":            map[string]any{"trigger": "by hand"},
		"level":              map[string]any{"level": "deep"},
		"state":              map[string]any{"state": "lost"},
		"sort":               map[string]any{"sort": "beauty"},
		"limit":              map[string]any{"limit": -1},
		"older_than_seconds": map[string]any{"older_than_seconds": -5},
		"clean":              map[string]any{"clean": "yes"},
		"since":              map[string]any{"since": "yesterday"},
		"until":              map[string]any{"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
		`"color"`:            map[string]any{"color": "red"},
	} {
		for _, method := range []string{"snapshots", "delete_snapshots"} {
			if _, err := c.Caller.Call(t.Context(), method, argument); err == nil || !strings.Contains(err.Error(), field) {
				t.Errorf("%s of %v: %v", method, argument, err)
			}
		}
	}
	all, err := c.Snapshots(t.Context())
	no(t, err)
	if len(all) != 2 {
		t.Errorf("left are %+v", all)
	}
}

func testReconcile(t *testing.T, d *apitest.Daemon, c api.Client) {
	take(t, c)
	d.Answer(t, "list_snapshots", `{"result":[{"snapshot_cid":"snap-9","disk_cid":"disk-1","size":7}],"error":null,"log":""}`)
	r, err := c.Reconcile(t.Context(), api.ReconcileOptions{})
	no(t, err)
	if r.Known != 0 || len(r.Missing) != 1 || r.Missing[0].CID != "snap-1" {
		t.Errorf("got %+v", r)
	}
	same(t, []api.Unknown{{CID: "snap-9", DiskCID: apitest.DiskCID, Size: 7}}, r.Unknown)
	r, err = c.Reconcile(t.Context(), api.ReconcileOptions{Adopt: true, Drop: true})
	no(t, err)
	if len(r.Adopted) != 1 || len(r.Dropped) != 1 || len(r.Missing)+len(r.Unknown) != 0 {
		t.Errorf("got %+v", r)
	}
	d.Answer(t, "list_snapshots", `{"result":null,"error":{"type":"Bosh::Clouds::NotImplemented","message":"list_snapshots","ok_to_retry":false},"log":""}`)
	_, err = c.Reconcile(t.Context(), api.ReconcileOptions{})
	fails(t, err, api.KindRefused, "cannot list snapshots")
	_, err = c.Caller.Call(t.Context(), "reconcile", map[string]any{"drop": "yes"})
	fails(t, err, api.KindInvalid, "drop: got string, want true or false")
}

func testRuns(t *testing.T, d *apitest.Daemon, c api.Client) {
	none, err := c.Runs(t.Context())
	no(t, err)
	same(t, []wire.Report{}, none)
	first := take(t, c)
	d.Answer(t, "snapshot_disk", cloudError)
	second, err := c.Take(t.Context(), agent.Request{})
	no(t, err)
	_, err = c.Report(t.Context(), second)
	fails(t, err, api.KindFailed, "no quota left")
	all, err := c.Runs(t.Context())
	no(t, err)
	if len(all) != 2 || all[0].ID != second || all[0].Outcome != "failed" || all[1].ID != first || all[1].Outcome != "succeeded" {
		t.Errorf("the runs are %+v", all)
	}
}
