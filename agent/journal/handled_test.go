package journal_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/journal"
)

func TestWhatIsDealtWithIsReadBack(t *testing.T) {
	f := journal.HandledFile{Path: filepath.Join(t.TempDir(), "schedules.json")}
	if none, err := f.Get(); err != nil || len(none) != 0 {
		t.Errorf("before anything is written: %v, %v", none, err)
	}
	want := map[agent.Trigger]agent.Handled{
		agent.TriggerScheduled: {Cron: "0 7 * * *", Time: time.Date(2026, 3, 29, 7, 0, 0, 0, time.UTC)},
		agent.TriggerSelf:      {Cron: "0 0 6 * * * UTC", Time: time.Date(2026, 3, 29, 6, 0, 0, 0, time.UTC)},
	}
	for range 2 {
		if err := f.Put(want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := f.Get()
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v; -want +got:\n%s", err, diff)
	}
}

// Runs are known by their ids, so nothing is lost but the count of what was missed.
func TestFileOfWhatIsDealtWithThatMakesNoSenseTellsOfNothing(t *testing.T) {
	f := journal.HandledFile{Path: filepath.Join(t.TempDir(), "schedules.json")}
	for _, text := range []string{"", "{", "[]", `{"scheduled":{"cron":5}}`} {
		if err := os.WriteFile(f.Path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Get(); err != nil || len(got) != 0 {
			t.Errorf("%q is read as %v, %v", text, got, err)
		}
	}
}

func TestWhatIsDealtWithCannotBeWritten(t *testing.T) {
	f := journal.HandledFile{Path: filepath.Join(t.TempDir(), "nowhere", "schedules.json")}
	if err := f.Put(nil); err == nil {
		t.Error("it is written to a directory that is not there")
	}
}
