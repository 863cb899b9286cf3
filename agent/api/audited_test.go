package api_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
)

func testAudit(t *testing.T, d *apitest.Daemon, c api.Client) {
	const secret = "hunter2-of-the-arguments"
	before := len(d.Audited())
	calls := []struct {
		method   string
		argument any
		want     string // method, id, failure
	}{
		{"status", secret, "status  "},
		{"take_snapshot", map[string]any{"id": "run-1", "metadata": map[string]string{"note": secret}}, "take_snapshot run-1 "},
		{"get_task", "run-1", "get_task run-1 "},
		{"cancel_task", "run-1", "cancel_task run-1 "},
		{"take_snapshot", map[string]any{"id": "run-2", "level": secret}, "take_snapshot run-2 refused"},
		{"plan_snapshot", map[string]any{"id": secret + "/", secret: 1}, "plan_snapshot " + secret + "/ invalid"},
		{"get_task", "run-9", "get_task run-9 invalid"},
		{"delete_snapshot", secret, "delete_snapshot TASK "},
		{"ping", secret, "ping  unknown_method"},
	}
	for _, call := range calls {
		_, _ = c.Caller.Call(t.Context(), call.method, call.argument)
	}
	events := d.Audited()[before:]
	if len(events) != len(calls) {
		t.Fatalf("of %d calls there are %d events: %q", len(calls), len(events), events)
	}
	for i, e := range events {
		method := strings.TrimPrefix(e.Method, "quiesced_")
		want := strings.Replace(calls[i].want, "TASK", e.ID, 1)
		if got := fmt.Sprint(method, " ", e.ID, " ", e.Failed); got != want || e.By == "" {
			t.Errorf("%s is told as %+v, want %q", calls[i].method, e, want)
		}
		if strings.Contains(e.String(), secret) {
			t.Errorf("the line repeats an argument: %s", e)
		}
	}
	if events[7].ID == "" {
		t.Error("the task of a deletion has no id")
	}
}

func TestAFailedRunIsAFailureToTheAudit(t *testing.T) {
	d := apitest.Start(t)
	c := api.Client{Caller: d.OnSocket(t)}
	d.Answer(t, "snapshot_disk", "Segmentation fault")
	id, err := c.Take(t.Context(), agent.Request{ID: "run-1"})
	no(t, err)
	_, err = c.Report(t.Context(), id)
	fails(t, err, api.KindFailed, "")
	last := d.Audited()[len(d.Audited())-1]
	if !strings.HasPrefix(last.By, "uid 0 (pid ") || last.From != "" || last.Method != "get_task" || last.ID != "run-1" || last.Failed != "failed" {
		t.Errorf("the audit is told %+v", last)
	}
}
