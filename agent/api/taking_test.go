package api_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/wire"
)

func testTake(t *testing.T, d *apitest.Daemon, c api.Client) {
	id, err := c.Take(t.Context(), agent.Request{Metadata: map[string]string{"owner": "me"}})
	no(t, err)
	r := report(t, c, id)
	if r.ID != id || r.Outcome != "succeeded" || r.Asked != "none" || r.Reached != "none" || r.Clean || r.Trigger != "manual" || r.By == "" {
		t.Errorf("another report than of a dirty run by hand: %+v", r)
	}
	if len(r.Disks) != 1 || r.Disks[0].CID != apitest.DiskCID || r.Disks[0].SnapshotCID != "snap-1" || r.Disks[0].Seconds <= 0 {
		t.Errorf("another disk than the daemon's: %+v", r.Disks)
	}
	names := map[string]bool{}
	for _, s := range r.Metrics {
		names[s.Name] = true
	}
	for _, name := range []string{"quiesced_run_clean", "quiesced_run_phase_seconds", "quiesced_run_disk_snapshot_seconds"} {
		if !names[name] {
			t.Errorf("no sample of %s in %v", name, r.Metrics)
		}
	}
	calls := d.Calls(t, "snapshot_disk")
	if len(calls) != 1 || !strings.Contains(calls[0], `"owner":"me"`) {
		t.Errorf("the CPI got %q", calls)
	}
}

func testGetTaskAgain(t *testing.T, _ *apitest.Daemon, c api.Client) {
	id, err := c.Take(t.Context(), agent.Request{})
	no(t, err)
	same(t, report(t, c, id), report(t, c, id))
}

func testGetTaskWaits(t *testing.T, d *apitest.Daemon, c api.Client) {
	id := begin(t, d, c, agent.Request{})
	var released time.Time
	var releasing sync.WaitGroup
	releasing.Go(func() {
		time.Sleep(200 * time.Millisecond)
		released = time.Now()
		d.Release(t, "snapshot_disk")
	})
	value, err := c.Caller.Call(t.Context(), "get_task", id)
	answered := time.Now()
	releasing.Wait()
	no(t, err)
	if answered.Before(released) || !strings.Contains(string(value), "snap-1") {
		t.Errorf("get_task answers %s before the end: %s", released.Sub(answered), value)
	}
}

func testGetTaskRunning(t *testing.T, d *apitest.Daemon, c api.Client) {
	d.Handler.Wait = 20 * time.Millisecond
	id := begin(t, d, c, agent.Request{ID: "run-1"})
	value, err := c.Caller.Call(t.Context(), "get_task", id)
	no(t, err)
	same(t, `{"agent_task_id":"run-1","state":"running"}`, string(value))
}

func testSameID(t *testing.T, d *apitest.Daemon, c api.Client) {
	r := agent.Request{ID: "run-1", Level: agent.LevelNone}
	begin(t, d, c, r)
	id, err := c.Take(t.Context(), r)
	no(t, err)
	d.Release(t, "snapshot_disk")
	first := report(t, c, id)
	id, err = c.Take(t.Context(), r)
	no(t, err)
	same(t, first, report(t, c, id))
	if n := len(d.Calls(t, "snapshot_disk")); n != 1 {
		t.Errorf("one request made %d snapshots", n)
	}
}

func testOtherRequest(t *testing.T, d *apitest.Daemon, c api.Client) {
	id, err := c.Take(t.Context(), agent.Request{ID: "run-1"})
	no(t, err)
	report(t, c, id)
	_, err = c.Take(t.Context(), agent.Request{ID: "run-1", Metadata: map[string]string{"owner": "me"}})
	fails(t, err, api.KindRefused, `id: "run-1" was used for another request`)
	if n := len(d.Calls(t, "snapshot_disk")); n != 1 {
		t.Errorf("%d snapshots", n)
	}
}

func testBusy(t *testing.T, d *apitest.Daemon, c api.Client) {
	begin(t, d, c, agent.Request{ID: "run-1"})
	_, err := c.Take(t.Context(), agent.Request{ID: "run-2"})
	fails(t, err, api.KindBusy, "busy with run run-1 (snapshot) since ")
	_, err = c.DeleteAll(t.Context(), agent.Selection{})
	fails(t, err, api.KindBusy, "busy with run run-1 (snapshot) since ")
}

func testWait(t *testing.T, d *apitest.Daemon, c api.Client) {
	begin(t, d, c, agent.Request{ID: "run-1"})
	id, err := c.Take(t.Context(), agent.Request{ID: "run-2", Wait: true})
	no(t, err)
	d.Release(t, "snapshot_disk")
	if r := report(t, c, id); r.Outcome != "succeeded" || r.Disks[0].SnapshotCID != "snap-2" {
		t.Errorf("the queued run ended as %+v", r)
	}
}

func testUnknownTask(t *testing.T, _ *apitest.Daemon, c api.Client) {
	_, err := c.Report(t.Context(), "nope")
	fails(t, err, api.KindInvalid, "Task with id nope could not be found")
	fails(t, c.Cancel(t.Context(), "nope"), api.KindInvalid, "Task with id nope could not be found")
}

func testDisabled(t *testing.T, d *apitest.Daemon, c api.Client) {
	id, err := c.Take(t.Context(), agent.Request{})
	no(t, err)
	if r := report(t, c, id); r.Outcome != "disabled" || r.Reason != "snapshots are disabled" || len(r.Disks) != 0 {
		t.Errorf("the run ended as %+v", r)
	}
	value, err := c.Caller.Call(t.Context(), "snapshots")
	no(t, err)
	same(t, "[]", string(value))
	if n := len(d.Calls(t, "snapshot_disk")); n != 0 {
		t.Errorf("%d snapshots", n)
	}
}

func testPlan(t *testing.T, d *apitest.Daemon, c api.Client) {
	plan, err := c.Plan(t.Context(), agent.Request{Level: agent.LevelSync})
	no(t, err)
	if len(plan.Filesystems) != 1 || plan.Filesystems[0].Mount != d.Mount || plan.Filesystems[0].Type != "ext4" {
		t.Errorf("the plan's filesystems are %+v", plan.Filesystems)
	}
	var steps []string
	for _, a := range plan.Actions {
		steps = append(steps, a.Kind+" "+a.Target)
	}
	same(t, []string{"start CPI disk-1", "write out " + d.Mount, "snapshot disk-1"}, steps)
	if n := len(d.Calls(t, "info")); n != 0 {
		t.Errorf("the CPI was asked %d times", n)
	}
}

func testFailed(t *testing.T, d *apitest.Daemon, c api.Client) {
	d.Answer(t, "snapshot_disk", cloudError)
	id, err := c.Take(t.Context(), agent.Request{})
	no(t, err)
	_, err = c.Report(t.Context(), id)
	x := fails(t, err, api.KindFailed, "CloudError: no quota left")
	if x.Report == nil || x.Report.ID != id || x.Report.Outcome != "failed" || len(x.Report.Metrics) == 0 {
		t.Errorf("the report is %+v", x.Report)
	}
	if !strings.Contains(x.Message, "get_task: Task "+id+" result: ") {
		t.Errorf("the message does not name the task: %s", x.Message)
	}
	all, err := c.Snapshots(t.Context())
	no(t, err)
	same(t, []wire.Snapshot{}, all)
}
