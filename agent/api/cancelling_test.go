package api_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
)

func testCancelQueued(t *testing.T, d *apitest.Daemon, c api.Client) {
	begin(t, d, c, agent.Request{ID: "run-1"})
	id, err := c.Take(t.Context(), agent.Request{ID: "run-2", Wait: true})
	no(t, err)
	no(t, c.Cancel(t.Context(), id))
	_, err = c.Report(t.Context(), id)
	fails(t, err, api.KindCancelled, "the run was cancelled")
	if n := len(d.Calls(t, "snapshot_disk")); n != 1 {
		t.Errorf("%d snapshots", n)
	}
}

func testCancelFrozen(t *testing.T, d *apitest.Daemon, c api.Client) {
	id := begin(t, d, c, agent.Request{ID: "run-1"})
	value, err := c.Caller.Call(t.Context(), "cancel_task", id)
	no(t, err)
	same(t, `"canceled"`, string(value))
	no(t, os.Mkdir(filepath.Join(d.Mount, "thawed"), 0o700)) // "canceled" says that nothing is held any more
	d.Release(t, "snapshot_disk")
	_, err = c.Report(t.Context(), id)
	x := fails(t, err, api.KindCancelled, "the run was cancelled")
	if r := x.Report; r == nil || r.Outcome != "cancelled" || r.Clean || len(r.Thaws) != 1 || r.Disks[0].SnapshotCID != "snap-1" {
		t.Errorf("the report is %+v", x.Report)
	}
	keptCID(t, c)
}

func testCancelUnfrozen(t *testing.T, d *apitest.Daemon, c api.Client) {
	id := begin(t, d, c, agent.Request{ID: "run-1"})
	no(t, c.Cancel(t.Context(), id))
	d.Release(t, "snapshot_disk")
	r, err := c.Report(t.Context(), id)
	var x *api.Error
	if errors.As(err, &x) && x.Kind == api.KindCancelled && x.Report != nil {
		r, err = *x.Report, nil
	}
	no(t, err)
	same(t, "snap-1", r.Disks[0].SnapshotCID)
	keptCID(t, c)
}

func keptCID(t *testing.T, c api.Client) {
	t.Helper()
	all, err := c.Snapshots(t.Context())
	no(t, err)
	if len(all) != 1 || all[0].CID != "snap-1" || all[0].State != "known" {
		t.Errorf("the catalogue has lost the CID: %+v", all)
	}
}

func testCancelEnded(t *testing.T, _ *apitest.Daemon, c api.Client) {
	id, err := c.Take(t.Context(), agent.Request{})
	no(t, err)
	want := report(t, c, id)
	no(t, c.Cancel(t.Context(), id))
	same(t, want, report(t, c, id))
}

func testCancelDelete(t *testing.T, d *apitest.Daemon, c api.Client) {
	take(t, c)
	d.Hold(t, "delete_snapshot")
	value, err := c.Caller.Call(t.Context(), "delete_snapshot", "snap-1")
	no(t, err)
	var task api.Task
	no(t, json.Unmarshal(value, &task))
	d.AwaitCall(t, "delete_snapshot", 1)
	fails(t, c.Cancel(t.Context(), task.ID), api.KindInvalid, "not supported")
	d.Release(t, "delete_snapshot")
	value, err = c.Caller.Call(t.Context(), "get_task", task.ID)
	no(t, err)
	same(t, `{"deleted":["snap-1"]}`, string(value))
	no(t, c.Cancel(t.Context(), task.ID))
}
