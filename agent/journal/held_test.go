package journal_test

import (
	"path/filepath"
	"testing"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/journal"
)

func TestWhatIsHeldOfTheJobsIsKeptUntilItIsRemoved(t *testing.T) {
	testKept(t, journal.HeldFile{Path: filepath.Join(t.TempDir(), "held.json")},
		agent.Held{Run: "run-1", Level: agent.LevelStop, Stopped: true},
		agent.Held{Run: "run-1", Level: agent.LevelLock, Locked: [][]string{{"db"}}})
}

func TestWhatIsHeldAndCannotBeReadIsAnError(t *testing.T) {
	testUnusable(t, func(path string) store[agent.Held] { return journal.HeldFile{Path: path} })
}
