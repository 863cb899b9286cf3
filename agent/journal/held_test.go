package journal_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/journal"
)

func TestWhatIsHeldOfTheJobsIsKeptUntilItIsRemoved(t *testing.T) {
	f := journal.HeldFile{Path: filepath.Join(t.TempDir(), "held.json")}
	if _, ok, err := f.Get(); ok || err != nil {
		t.Fatalf("before anything is held: %t, %v", ok, err)
	}
	for _, want := range []agent.Held{{Run: "run-1", Level: agent.LevelStop, Stopped: true}, {Run: "run-1", Level: agent.LevelLock, Locked: [][]string{{"db"}}}} {
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

func TestWhatIsHeldAndCannotBeReadIsAnError(t *testing.T) {
	f := journal.HeldFile{Path: filepath.Join(t.TempDir(), "held.json")}
	if err := os.WriteFile(f.Path, []byte(`{"run_id":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Get(); err == nil {
		t.Error("half a document is read")
	}
	if err := (journal.HeldFile{Path: filepath.Join(t.TempDir(), "missing", "held.json")}).Put(agent.Held{}); err == nil {
		t.Error("it is written where there is no directory")
	}
}
