package api_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
)

// testRestore has a CPI that makes disks and cannot attach them. The whole of a restore is
// tested with local-cpi.
func testRestore(t *testing.T, d *apitest.Daemon, c api.Client) {
	unknown := agent.RestoreRequest{CID: "snap-9"}
	_, err := c.PlanRestore(t.Context(), unknown)
	fails(t, err, api.KindNotFound, `unknown snapshot "snap-9"`)
	_, err = c.Restore(t.Context(), unknown)
	fails(t, err, api.KindNotFound, `unknown snapshot "snap-9"`)
	_, err = c.Caller.Call(t.Context(), "restore_snapshot", "snap-9")
	fails(t, err, api.KindInvalid, "cannot read the request")
	take(t, c)

	asked := agent.RestoreRequest{CID: "snap-1", ID: "back-1"}
	plan, err := c.PlanRestore(t.Context(), asked)
	no(t, err)
	if plan.Disk != apitest.DiskCID || len(plan.Actions) < 5 || len(d.Calls(t, "create_disk")) != 0 {
		t.Errorf("the plan is %+v", plan)
	}
	for range 2 { // the second time it is found
		id, err := c.Restore(t.Context(), asked)
		no(t, err)
		if id != asked.ID {
			t.Errorf("the id is %q", id)
		}
		_, err = c.Report(t.Context(), id)
		var x *api.Error
		if !errors.As(err, &x) || x.Kind != api.KindFailed || x.Report == nil || x.Report.Restore == nil || x.Report.Restore.Side != "before" {
			t.Errorf("got %v, %+v", err, x)
		}
	}
	removed(t, d, "scratch-1")
	asked.Force = true
	_, err = c.Restore(t.Context(), asked)
	fails(t, err, api.KindRefused, "was used for another request")

	d.Hold(t, "create_disk")
	id, err := c.Restore(t.Context(), agent.RestoreRequest{CID: "snap-1"})
	no(t, err)
	d.AwaitCall(t, "create_disk", 2)
	_, err = c.Take(t.Context(), agent.Request{})
	fails(t, err, api.KindBusy, "busy with restore snap-1")
	_, err = c.Delete(t.Context(), "snap-1")
	fails(t, err, api.KindBusy, "busy with restore snap-1")
	s, err := c.Status(t.Context())
	no(t, err)
	if s.Work != "restore snap-1" || s.Phase != string(agent.PhaseMakeDisk) {
		t.Errorf("the status is %+v", s)
	}
	cancelled := make(chan error)
	go func() { cancelled <- c.Cancel(t.Context(), id) }()
	no(t, <-cancelled)
	d.Release(t, "create_disk")
	_, err = c.Report(t.Context(), id)
	fails(t, err, api.KindCancelled, "the run was cancelled")
	text, err := c.Metrics(t.Context())
	no(t, err)
	if !strings.Contains(text, `quiesced_restores_total{outcome="failed"} 1`) || !strings.Contains(text, `quiesced_restores_total{outcome="cancelled"} 1`) {
		t.Errorf("the metrics are\n%s", text)
	}
}
