package wire

import (
	"time"

	"github.com/quiesced/quiesced/agent"
)

// Snapshot is one entry of the catalogue, under the keys of the director's own
// list and with what else is known of it.
type Snapshot struct {
	Job   string `json:"job"`
	Index int    `json:"index"`
	UUID  string `json:"uuid"`
	Entry
}

// Entry is what the catalogue stores of a snapshot.
type Entry struct {
	CID     string    `json:"snapshot_cid"`
	Created time.Time `json:"created_at"`
	Clean   bool      `json:"clean"`
	DiskCID string    `json:"disk_cid"`
	State   string    `json:"state"`
	Level   string    `json:"level"`
	Trigger string    `json:"trigger"`
	RunID   string    `json:"run_id"`
	By      string    `json:"by,omitempty"`
	Note    string    `json:"note,omitempty"`
}

// FromSnapshot is the entry's JSON form for an instance.
func FromSnapshot(s agent.Snapshot, in agent.Instance) Snapshot {
	return Snapshot{Job: in.Job, Index: in.Index, UUID: in.ID, Entry: fromEntry(s)}
}

func fromEntry(s agent.Snapshot) Entry {
	return Entry{
		CID: s.CID, Created: s.Created.UTC(), Clean: s.Clean, DiskCID: s.DiskCID, State: string(s.State),
		Level: string(s.Level), Trigger: string(s.Trigger), RunID: s.RunID, By: s.By, Note: s.Note,
	}
}

func (e Entry) domain() agent.Snapshot {
	return agent.Snapshot{
		CID: e.CID, DiskCID: e.DiskCID, State: agent.SnapshotState(e.State), Clean: e.Clean,
		Level: agent.Level(e.Level), Trigger: agent.Trigger(e.Trigger), RunID: e.RunID, By: e.By,
		Created: e.Created, Note: e.Note,
	}
}
