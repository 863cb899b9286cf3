package agent

import (
	"cmp"
	"time"
)

// SnapshotState is where a snapshot stands in its life.
type SnapshotState string

// The states of a snapshot in the catalogue.
const (
	SnapshotKnown      SnapshotState = "known"
	SnapshotUnresolved SnapshotState = "unresolved" // the CPI was told to make it and gave no usable answer
	SnapshotDeleting   SnapshotState = "deleting"   // the CPI is to delete it, or was told to, and has not said that it did
)

// SnapshotStates lists every state.
func SnapshotStates() []SnapshotState {
	return []SnapshotState{SnapshotKnown, SnapshotUnresolved, SnapshotDeleting}
}

// Snapshot is one entry of the catalogue. What Verified points to never changes.
type Snapshot struct {
	CID      string // "" when unresolved
	DiskCID  string
	State    SnapshotState
	Clean    bool
	Asked    Level
	Level    Level // reached
	Trigger  Trigger
	Held     bool   // taken in a hold: the director's database owns it
	RunID    string // "" where no run of this daemon is known to have taken it
	By       string // who asked for it
	Created  time.Time
	DiskSize int64         // of the disk when it was taken, in bytes; 0 where that is not known
	Size     int64         // of the snapshot, in bytes, where a CPI told; else 0
	Verified *Verification // the newest, nil for none
	Note     string        // why not clean, or what is unresolved
}

// Verification is what came of looking whether a snapshot is good.
type Verification struct {
	Time   time.Time
	OK     bool
	How    string // what looked: "e2fsck, job db"
	Result string // what it said
}

// SnapshotKey names a snapshot for good, with or without a CID.
type SnapshotKey string

// Key is the snapshot's. A run takes one snapshot of a disk; one of no known run has its
// CID alone. No run's id has a slash in it.
func (s Snapshot) Key() SnapshotKey {
	if s.RunID == "" {
		return SnapshotKey("/" + s.CID)
	}
	return SnapshotKey(s.RunID + "/" + s.DiskCID)
}

// byCreation orders snapshots, the oldest first.
func byCreation(a, b *Snapshot) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Key(), b.Key()))
}
