package api_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
)

// testVerify has a CPI that makes disks and cannot attach them. The whole of a verification is
// tested with local-cpi.
func testVerify(t *testing.T, d *apitest.Daemon, c api.Client) {
	_, err := c.Verify(t.Context(), "snap-9")
	fails(t, err, api.KindNotFound, `unknown snapshot "snap-9"`)
	_, err = c.Verify(t.Context(), "")
	fails(t, err, api.KindRefused, "there is no snapshot")
	take(t, c)

	d.Hold(t, "create_disk")
	id := verifying(t, d, c)
	_, err = c.Verify(t.Context(), "snap-1")
	fails(t, err, api.KindBusy, "busy with verify snap-1")
	_, err = c.Delete(t.Context(), "snap-1")
	fails(t, err, api.KindBusy, "busy with verify snap-1")
	cancelled := make(chan error)
	go func() { cancelled <- c.Cancel(t.Context(), id) }()
	d.Release(t, "create_disk")
	no(t, <-cancelled)
	_, err = c.Caller.Call(t.Context(), "get_task", id)
	fails(t, err, api.KindCancelled, `cannot verify snapshot "snap-1": `)
	removed(t, d, "scratch-1")

	id = verifying(t, d, c)
	_, err = c.Caller.Call(t.Context(), "get_task", id)
	fails(t, err, api.KindFailed, "attach_disk")
	removed(t, d, "scratch-2")
	all, err := c.Snapshots(t.Context())
	no(t, err)
	if all[0].Verified != nil {
		t.Errorf("recorded is %+v", all[0].Verified)
	}
	value, err := c.Caller.Call(t.Context(), "status")
	no(t, err)
	if strings.Contains(string(value), `"verification"`) {
		t.Errorf("the status is %s", value)
	}
}

// verifying is the task of a verification whose disk is being made.
func verifying(t *testing.T, d *apitest.Daemon, c api.Client) string {
	t.Helper()
	before := len(d.Calls(t, "create_disk"))
	value, err := c.Caller.Call(context.WithoutCancel(t.Context()), "verify_snapshot")
	no(t, err)
	var task api.Task
	no(t, json.Unmarshal(value, &task))
	d.AwaitCall(t, "create_disk", before+1)
	return task.ID
}

// removed asserts that the CPI was told to remove a disk.
func removed(t *testing.T, d *apitest.Daemon, disk string) {
	t.Helper()
	for _, method := range []string{"detach_disk", "delete_disk"} {
		calls := d.Calls(t, method)
		if len(calls) == 0 || !strings.Contains(calls[len(calls)-1], `"`+disk+`"`) {
			t.Errorf("%s: the CPI got %q", method, calls)
		}
	}
}
