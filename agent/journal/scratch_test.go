package journal_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/journal"
	"github.com/quiesced/quiesced/cpi"
)

func TestDiskOfAVerificationIsKeptUntilItIsRemoved(t *testing.T) {
	f := journal.ScratchFile{Path: filepath.Join(t.TempDir(), "verification.json")}
	if _, ok, err := f.Get(); ok || err != nil {
		t.Fatalf("before there is any: %t, %v", ok, err)
	}
	began := time.Date(2026, 11, 26, 7, 0, 0, 0, time.UTC)
	making := agent.Scratch{
		Snapshot: "snap-1", Boot: "boot-1", Began: began, Making: true,
		Call: &agent.Call{Dir: "/state/verification/create_disk", Process: cpi.Process{PID: 4711, StartTime: 1 << 60}},
	}
	made := agent.Scratch{Snapshot: "snap-1", Boot: "boot-1", Began: began, Disk: "disk-2", Path: "/dev/sdc"}
	for _, want := range []agent.Scratch{making, made} {
		if err := f.Put(want); err != nil {
			t.Fatal(err)
		}
		got, ok, err := f.Get()
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	for range 2 {
		if err := f.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok, err := f.Get(); ok || err != nil {
		t.Errorf("after it was removed: %t, %v", ok, err)
	}
}

func TestDiskOfAVerificationThatCannotBeReadIsAnError(t *testing.T) {
	f := journal.ScratchFile{Path: filepath.Join(t.TempDir(), "verification.json")}
	if err := os.WriteFile(f.Path, []byte(`{"disk_cid":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Get(); err == nil {
		t.Error("half a document is read")
	}
	if err := (journal.ScratchFile{Path: filepath.Join(t.TempDir(), "missing", "file")}).Put(agent.Scratch{}); err == nil {
		t.Error("it is written where there is no directory")
	}
}
