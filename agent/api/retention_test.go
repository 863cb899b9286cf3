package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/retention"
	"github.com/quiesced/quiesced/agent/wire"
)

// aged keeps what is younger than an instant.
func aged(s *agent.Settings) {
	s.Keep = retention.Policies{General: retention.Policy{MaxAge: time.Nanosecond}}
}

func testRetention(t *testing.T, d *apitest.Daemon, c api.Client) {
	take(t, c)
	for _, wrong := range []any{map[string]any{"dryrun": true}, map[string]any{"dry_run": "yes"}, "dry_run", nil} {
		_, err := c.Caller.Call(t.Context(), "apply_retention", wrong)
		fails(t, err, api.KindInvalid, "apply_retention: Extracting method arguments from payload: cannot read the request")
	}
	planned, err := c.PlanRetention(t.Context())
	no(t, err)
	want := func(verdict string) {
		t.Helper()
		if s := planned.Snapshots; len(s) != 1 || s[0].CID != "snap-1" || s[0].Job != "db" || s[0].Verdict != verdict || s[0].Why != "older than 1ns" {
			t.Errorf("decided is %+v", planned)
		}
	}
	want("goes")
	if calls := d.Calls(t, "delete_snapshot"); len(calls) > 0 {
		t.Errorf("the CPI got %q", calls)
	}
	d.Answer(t, "delete_snapshot", cloudError)
	planned, err = c.ApplyRetention(t.Context())
	no(t, err)
	want("failed")
	if !strings.Contains(planned.Snapshots[0].Error, "no quota left") {
		t.Errorf("it failed for %q", planned.Snapshots[0].Error)
	}
	d.Answer(t, "delete_snapshot", "")
	take(t, c)
	done, err := c.ApplyRetention(t.Context())
	no(t, err)
	if s := done.Snapshots; len(s) != 1 || s[0].CID != "snap-2" || s[0].Verdict != "deleted" {
		t.Errorf("done is %+v", done)
	}
	status, err := c.Status(t.Context())
	no(t, err)
	if r := status.Retention; r == nil || r.Deleted != 1 || r.Failed != 1 || r.Last == nil {
		t.Errorf("it is counted as %+v", r)
	}
}

func testRetentionOfNothing(t *testing.T, _ *apitest.Daemon, c api.Client) {
	done, err := c.ApplyRetention(t.Context())
	no(t, err)
	same(t, wire.Retention{Snapshots: []wire.Retained{}, Note: "no policy is configured (keep): all snapshots stay"}, done)
}
