package api_test

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/wire"
)

// transports are what the suite is run over.
var transports = []struct {
	name  string
	serve func(*testing.T, *apitest.Daemon) api.Caller
}{
	{"unix socket", func(t *testing.T, d *apitest.Daemon) api.Caller { return d.OnSocket(t) }},
	{"NATS", func(t *testing.T, d *apitest.Daemon) api.Caller { return d.OnBus(t, apitest.StartBus(t)) }},
}

// conformance is the suite. Each test gets a daemon of its own.
var conformance = []struct {
	name   string
	change func(*agent.Settings)
	test   func(*testing.T, *apitest.Daemon, api.Client)
}{
	{"info says who answers", nil, testInfo},
	{"status of an idle daemon", nil, testStatusIdle},
	{"status of a busy daemon has its phase", nil, testStatusBusy},
	{"a run ends in a report with CIDs and samples", nil, testTake},
	{"get_task answers the same again", nil, testGetTaskAgain},
	{"get_task waits for the end", nil, testGetTaskWaits},
	{"get_task says running when the end is far", nil, testGetTaskRunning},
	{"the same id joins the run and gets its report", nil, testSameID},
	{"an id is refused for another request", nil, testOtherRequest},
	{"a second request is busy and names the run", nil, testBusy},
	{"a request that waits is queued", nil, testWait},
	{"a queued request can be cancelled", nil, testCancelQueued},
	{"a run that is cancelled when nothing is frozen keeps its CID", nil, testCancelUnfrozen},
	{"a run that has ended can be cancelled", nil, testCancelEnded},
	{"a task that is not known", nil, testUnknownTask},
	{"snapshots are disabled", func(s *agent.Settings) { s.Enabled = false }, testDisabled},
	{"snapshots have the director's keys and ours", nil, testSnapshotKeys},
	{"a snapshot is deleted", nil, testDelete},
	{"an unknown snapshot is named", nil, testDeleteUnknown},
	{"a deletion that the CPI refuses keeps the entry", nil, testDeleteFails},
	{"a deletion cannot be cancelled until it has ended", nil, testCancelDelete},
	{"all snapshots are deleted", nil, testDeleteAll},
	{"a method that is not known", nil, testUnknownMethod},
	{"requests that are refused", nil, testRefused},
	{"arguments that are wrong", nil, testWrongArguments},
	{"arguments of a megabyte", nil, testLargeArguments},
	{"runs are listed, newest first", nil, testRuns},
	{"metrics are Prometheus text", nil, testMetrics},
	{"a failed run has its report", nil, testFailed},
	{"a CPI that talks nonsense leaves an unresolved snapshot", nil, testGarbage},
	{"thirty-two callers at once", nil, testConcurrent},
}

func TestConformance(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport.name, func(t *testing.T) {
			t.Run("a run that is cancelled while frozen keeps its CID", func(t *testing.T) {
				d := apitest.StartFreezing(t)
				testCancelFrozen(t, d, api.Client{Caller: transport.serve(t, d)})
			})
			t.Run("a plan touches nothing", func(t *testing.T) {
				d := apitest.StartFreezing(t)
				testPlan(t, d, api.Client{Caller: transport.serve(t, d)})
			})
			for _, c := range conformance {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					change := c.change
					if change == nil {
						change = func(*agent.Settings) {}
					}
					d := apitest.Start(t, change)
					c.test(t, d, api.Client{Caller: transport.serve(t, d)})
				})
			}
		})
	}
}

func testInfo(t *testing.T, _ *apitest.Daemon, c api.Client) {
	got, err := c.Info(t.Context())
	no(t, err)
	want := api.Info{
		Version: "v1-test", Methods: api.Methods(), Levels: []string{"none", "sync", "freeze", "lock", "stop"}, Enabled: true,
		Instance: api.Instance{Deployment: "cf", Job: "db", Index: 2, ID: "inst-1", AgentID: apitest.AgentID},
	}
	same(t, want, got)
}

func testStatusIdle(t *testing.T, _ *apitest.Daemon, c api.Client) {
	got, err := c.Status(t.Context())
	no(t, err)
	want := api.Status{
		Version: "v1-test", Enabled: true,
		Instance: api.Instance{Deployment: "cf", Job: "db", Index: 2, ID: "inst-1", AgentID: apitest.AgentID},
	}
	same(t, want, got)
}

func testStatusBusy(t *testing.T, d *apitest.Daemon, c api.Client) {
	id := begin(t, d, c, agent.Request{ID: "run-1"})
	busy, err := c.Status(t.Context())
	no(t, err)
	if busy.Work != "run "+id || busy.Phase != string(agent.PhaseSnapshot) || busy.Since == nil || time.Since(*busy.Since) > time.Minute {
		t.Errorf("a status that does not say what is done: %+v", busy)
	}
	d.Release(t, "snapshot_disk")
	report(t, c, id)
	apitest.Eventually(t, "the daemon is idle", func() bool {
		idle, err := c.Status(t.Context())
		no(t, err)
		return idle.Work == "" && idle.Last != nil && idle.Last.ID == id && idle.Snapshots == 1
	})
}

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
	_, err = c.DeleteAll(t.Context())
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

// testCancelUnfrozen leaves open how the run ends: nothing was held that ends
// earlier for its being cancelled.
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
		"by", "clean", "created_at", "disk_cid", "index", "job", "level", "note", "run_id", "snapshot_cid", "state", "trigger", "uuid",
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

func testUnknownMethod(t *testing.T, _ *apitest.Daemon, c api.Client) {
	for _, method := range []string{"ping", "", "a/b", "a b?c=d#e", "../info", `a"b<c>`, strings.Repeat("x", 5000)} {
		_, err := c.Caller.Call(t.Context(), method)
		fails(t, err, api.KindUnknownMethod, "unknown message ")
		if err != nil && !strings.HasSuffix(err.Error(), method) {
			t.Errorf("%q is called %q", method, err)
		}
	}
}

func testRefused(t *testing.T, d *apitest.Daemon, c api.Client) {
	for _, test := range []struct {
		request agent.Request
		message string
	}{
		{agent.Request{Level: "deep"}, `level: unknown level "deep" (one of none, sync,`},
		{agent.Request{Level: "stop"}, "level: cannot reach level \"stop\""},
		{agent.Request{Level: "freeze"}, "a filesystem of type tmpfs cannot be held"},
		{agent.Request{Disks: []string{apitest.DiskCID, "disk-9"}}, `disks[1]: unknown disk "disk-9"`},
		{agent.Request{Job: "web"}, `job: unknown job "web": this instance is db/inst-1`},
		{agent.Request{Job: "db/7"}, `job: unknown instance "db/7"`},
		{agent.Request{Trigger: "boredom"}, `trigger: unknown trigger "boredom"`},
		{agent.Request{Trigger: "director"}, "trigger: "},
		{agent.Request{ID: "../x"}, "id: "},
		{agent.Request{Metadata: map[string]string{"agent_id": "x"}}, "metadata.agent_id: the key is the instance's own"},
	} {
		_, err := c.Take(t.Context(), test.request)
		fails(t, err, api.KindRefused, test.message)
		_, err = c.Plan(t.Context(), test.request)
		fails(t, err, api.KindRefused, test.message)
	}
	if n := len(d.Calls(t, "info")); n != 0 {
		t.Errorf("the CPI was asked %d times", n)
	}
}

func testWrongArguments(t *testing.T, d *apitest.Daemon, c api.Client) {
	for _, test := range []struct {
		method    string
		arguments []any
		message   string
	}{
		{"get_task", nil, "Not enough arguments, expected 1, got 0"},
		{"cancel_task", nil, "Not enough arguments, expected 1, got 0"},
		{"delete_snapshot", nil, "Not enough arguments, expected 1, got 0"},
		{"get_task", []any{5}, "cannot unmarshal number into Go value of type string"},
		{"delete_snapshot", []any{[]string{"snap-1"}}, "cannot unmarshal array into Go value of type string"},
		{"take_snapshot", []any{"now"}, "cannot read the request: "},
		{"take_snapshot", []any{map[string]any{"level": 3}}, "level"},
		{"take_snapshot", []any{map[string]any{"depth": 3}}, `unknown field "depth"`},
		{"plan_snapshot", []any{[]any{}}, "cannot read the request: "},
	} {
		_, err := c.Caller.Call(t.Context(), test.method, test.arguments...)
		fails(t, err, api.KindInvalid, test.message)
	}
	if n := len(d.Calls(t, "info")); n != 0 {
		t.Errorf("the CPI was asked %d times", n)
	}
	_, err := c.Caller.Call(t.Context(), "info", "more", "than", 1, "needs")
	no(t, err)
}

func testLargeArguments(t *testing.T, d *apitest.Daemon, c api.Client) {
	large := func(bytes int) agent.Request {
		return agent.Request{Metadata: map[string]string{"note": strings.Repeat("x", bytes)}}
	}
	_, err := c.Take(t.Context(), large(1<<20))
	fails(t, err, api.KindInvalid, "the request has 1048")
	_, err = c.Take(t.Context(), large(wire.MaxRequest))
	fails(t, err, api.KindInvalid, "more than 65536")
	if n := len(d.Calls(t, "info")); n != 0 {
		t.Errorf("the CPI was asked %d times", n)
	}
	if _, err := c.Info(t.Context()); err != nil {
		t.Errorf("the connection has suffered: %v", err)
	}
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

func testMetrics(t *testing.T, _ *apitest.Daemon, c api.Client) {
	take(t, c)
	text, err := c.Metrics(t.Context())
	no(t, err)
	for _, line := range []string{
		"# TYPE quiesced_runs_total counter\n",
		`quiesced_runs_total{level="none",outcome="succeeded",trigger="manual"} 1` + "\n",
		"quiesced_snapshots_enabled 1\n",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in\n%s", line, text)
		}
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

func testGarbage(t *testing.T, d *apitest.Daemon, c api.Client) {
	d.Answer(t, "snapshot_disk", "Segmentation fault")
	id, err := c.Take(t.Context(), agent.Request{})
	no(t, err)
	_, err = c.Report(t.Context(), id)
	x := fails(t, err, api.KindFailed, "invalid response")
	if x.Report == nil || !x.Report.Disks[0].Unresolved {
		t.Errorf("the report is %+v", x.Report)
	}
	all, err := c.Snapshots(t.Context())
	no(t, err)
	if len(all) != 1 || all[0].State != "unresolved" || all[0].CID != "" {
		t.Errorf("the catalogue is %+v", all)
	}
}

func testConcurrent(t *testing.T, d *apitest.Daemon, c api.Client) {
	begin(t, d, c, agent.Request{ID: "run-1"})
	var callers sync.WaitGroup
	for i := range 32 {
		callers.Go(func() {
			if id, err := c.Take(t.Context(), agent.Request{ID: "run-1"}); err != nil || id != "run-1" {
				t.Errorf("caller %d does not join: %q, %v", i, id, err)
			}
			if _, err := c.Status(t.Context()); err != nil {
				t.Errorf("caller %d gets no status: %v", i, err)
			}
			if i == 0 {
				d.Release(t, "snapshot_disk")
			}
		})
	}
	callers.Wait()
	var reports sync.WaitGroup
	for i := range 32 {
		reports.Go(func() {
			if r, err := c.Report(t.Context(), "run-1"); err != nil || r.Disks[0].SnapshotCID != "snap-1" {
				t.Errorf("caller %d gets %+v, %v", i, r, err)
			}
		})
	}
	reports.Wait()
	if n := len(d.Calls(t, "snapshot_disk")); n != 1 {
		t.Errorf("one request made %d snapshots", n)
	}
}

// begin begins a run whose CPI call is then held.
func begin(t *testing.T, d *apitest.Daemon, c api.Client, r agent.Request) string {
	t.Helper()
	d.Hold(t, "snapshot_disk")
	id, err := c.Take(t.Context(), r)
	no(t, err)
	d.AwaitCall(t, "snapshot_disk", 1)
	return id
}

// take makes a snapshot.
func take(t *testing.T, c api.Client) string {
	t.Helper()
	id, err := c.Take(t.Context(), agent.Request{Wait: true})
	no(t, err)
	report(t, c, id)
	apitest.Eventually(t, "the daemon is idle", func() bool {
		s, err := c.Status(t.Context())
		no(t, err)
		return s.Work == ""
	})
	return id
}

func report(t *testing.T, c api.Client, id string) wire.Report {
	t.Helper()
	r, err := c.Report(t.Context(), id)
	no(t, err)
	return r
}

// fails checks that an error is of a kind and says something.
func fails(t *testing.T, err error, kind api.Kind, says string) *api.Error {
	t.Helper()
	var x *api.Error
	if !errors.As(err, &x) {
		t.Fatalf("the error is no *api.Error: %v", err)
	}
	if x.Kind != kind || !strings.Contains(x.Error(), says) {
		t.Errorf("the error is of kind %q, %.300q; want %q, %q", x.Kind, x.Error(), kind, says)
	}
	return x
}

func no(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same[T any](t *testing.T, want, got T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
