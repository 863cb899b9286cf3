package api_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/wire"
)

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
