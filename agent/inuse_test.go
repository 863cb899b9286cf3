package agent_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api/apitest"
)

// A verification that takes its time, or cannot remove its disk, keeps nobody from
// restoring the snapshot, and everybody from deleting it.
func TestThoseWhoReadASnapshotShareItAndNobodyDeletesItMeanwhile(t *testing.T) {
	a := apitest.Start(t).Agent
	refused := func(use func(cid, work string) (func(), error), by string) {
		t.Helper()
		if _, err := use("snap-1", "other work"); !errors.As(err, new(*agent.BusyError)) || !strings.Contains(err.Error(), by) {
			t.Errorf("got %v, want to be told of %s", err, by)
		}
	}
	taken := func(use func(cid, work string) (func(), error), work string) func() {
		t.Helper()
		free, err := use("snap-1", work)
		if err != nil {
			t.Fatal(err)
		}
		return free
	}
	verified, restored := taken(a.Share, "verify snap-1"), taken(a.Share, "restore snap-1")
	refused(a.Use, "verify snap-1")
	verified()
	refused(a.Use, "restore snap-1")
	restored()
	deleted := taken(a.Use, "delete-snapshot snap-1")
	refused(a.Share, "delete-snapshot snap-1")
	refused(a.Use, "delete-snapshot snap-1")
	deleted()
	taken(a.Share, "verify snap-1")()
}
