package api_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

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
	no(t, c.Delete(t.Context(), "snap-1"))
	all, err := c.Snapshots(t.Context())
	no(t, err)
	if len(all) != 1 || all[0].CID != "snap-2" {
		t.Errorf("left are %+v", all)
	}
	if calls := d.Calls(t, "delete_snapshot"); len(calls) != 1 || !strings.Contains(calls[0], `"arguments":["snap-1"]`) {
		t.Errorf("the CPI got %q", calls)
	}
}

func testDeleteUnknown(t *testing.T, d *apitest.Daemon, c api.Client) {
	fails(t, c.Delete(t.Context(), "snap-9"), api.KindNotFound, `unknown snapshot "snap-9"`)
	fails(t, c.Delete(t.Context(), ""), api.KindNotFound, `unknown snapshot ""`)
	if n := len(d.Calls(t, "delete_snapshot")); n != 0 {
		t.Errorf("the CPI was asked %d times", n)
	}
}

const cloudError = `{"result":null,"error":{"type":"Bosh::Clouds::CloudError","message":"no quota left","ok_to_retry":false},"log":""}`

func testDeleteFails(t *testing.T, d *apitest.Daemon, c api.Client) {
	take(t, c)
	d.Answer(t, "delete_snapshot", cloudError)
	fails(t, c.Delete(t.Context(), "snap-1"), api.KindFailed, "no quota left")
	all, err := c.Snapshots(t.Context())
	no(t, err)
	if len(all) != 1 || all[0].State != "deleting" {
		t.Errorf("left are %+v", all)
	}
	d.Answer(t, "delete_snapshot", "")
	no(t, c.Delete(t.Context(), "snap-1"))
}

func testDeleteAll(t *testing.T, _ *apitest.Daemon, c api.Client) {
	none, err := c.DeleteAll(t.Context())
	no(t, err)
	same(t, []string{}, none)
	take(t, c)
	take(t, c)
	deleted, err := c.DeleteAll(t.Context())
	no(t, err)
	same(t, []string{"snap-1", "snap-2"}, deleted)
	left, err := c.Snapshots(t.Context())
	no(t, err)
	same(t, []wire.Snapshot{}, left)
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
