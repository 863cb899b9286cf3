package journal_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/journal"
	"github.com/quiesced/quiesced/cpi"
)

func TestDiskOfAVerificationIsKeptUntilItIsRemoved(t *testing.T) {
	began := time.Date(2026, 11, 26, 7, 0, 0, 0, time.UTC)
	making := agent.Scratch{
		Snapshot: "snap-1", Boot: "boot-1", Began: began, Making: true,
		Call: &agent.Call{Dir: "/state/verification/create_disk", Process: cpi.Process{PID: 4711, StartTime: 1 << 60}},
	}
	made := agent.Scratch{Snapshot: "snap-1", Boot: "boot-1", Began: began, Disk: "disk-2", Path: "/dev/sdc"}
	testKept(t, journal.ScratchFile{Path: filepath.Join(t.TempDir(), "verification.json")}, making, made)
}

func TestDiskOfAVerificationThatCannotBeReadIsAnError(t *testing.T) {
	testUnusable(t, func(path string) store[agent.Scratch] { return journal.ScratchFile{Path: path} })
}
