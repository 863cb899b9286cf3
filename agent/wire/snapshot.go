package wire

import (
	"encoding/json"
	"fmt"
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

// Entry is what the catalogue stores of a snapshot. Sizes are in bytes.
type Entry struct {
	CID      string        `json:"snapshot_cid"`
	Created  time.Time     `json:"created_at"`
	Clean    bool          `json:"clean"`
	DiskCID  string        `json:"disk_cid"`
	State    string        `json:"state"`
	Asked    string        `json:"level_asked,omitempty"`
	Level    string        `json:"level"`
	Trigger  string        `json:"trigger"`
	Held     bool          `json:"held,omitempty"` // the director's database owns it
	RunID    string        `json:"run_id"`
	By       string        `json:"by,omitempty"`
	DiskSize int64         `json:"disk_size,omitempty"`
	Size     int64         `json:"size,omitempty"`
	Verified *Verification `json:"verified,omitempty"`
	Note     string        `json:"note,omitempty"`
}

// Verification is what came of looking whether a snapshot is good.
type Verification struct {
	Time   time.Time `json:"at"`
	OK     bool      `json:"ok"`
	How    string    `json:"how"`
	Result string    `json:"result,omitempty"`
}

// FromSnapshot is the entry's JSON form for an instance.
func FromSnapshot(s agent.Snapshot, in agent.Instance) Snapshot {
	return Snapshot{Job: in.Job, Index: in.Index, UUID: in.ID, Entry: fromEntry(s)}
}

// MarshalSnapshot writes a snapshot as it is stored.
func MarshalSnapshot(s agent.Snapshot) ([]byte, error) { return json.Marshal(fromEntry(s)) }

// UnmarshalSnapshot reads a stored snapshot. Keys it does not know are passed over, as
// those of a record are.
func UnmarshalSnapshot(doc []byte) (agent.Snapshot, error) {
	var e Entry
	if err := json.Unmarshal(doc, &e); err != nil {
		return agent.Snapshot{}, fmt.Errorf("cannot read a stored snapshot: %w", err)
	}
	return e.domain(), nil
}

func fromEntry(s agent.Snapshot) Entry {
	e := Entry{
		CID: s.CID, Created: s.Created.UTC(), Clean: s.Clean, DiskCID: s.DiskCID, State: string(s.State),
		Asked: string(s.Asked), Level: string(s.Level), Trigger: string(s.Trigger), Held: s.Held, RunID: s.RunID, By: s.By,
		DiskSize: s.DiskSize, Size: s.Size, Note: s.Note,
	}
	if v := s.Verified; v != nil {
		e.Verified = &Verification{v.Time.UTC(), v.OK, v.How, v.Result}
	}
	return e
}

func (e Entry) domain() agent.Snapshot {
	s := agent.Snapshot{
		CID: e.CID, DiskCID: e.DiskCID, State: agent.SnapshotState(e.State), Clean: e.Clean,
		Asked: agent.Level(e.Asked), Level: agent.Level(e.Level), Trigger: agent.Trigger(e.Trigger), Held: e.Held,
		RunID: e.RunID, By: e.By, Created: e.Created, DiskSize: e.DiskSize, Size: e.Size, Note: e.Note,
	}
	if v := e.Verified; v != nil {
		s.Verified = &agent.Verification{Time: v.Time, OK: v.OK, How: v.How, Result: v.Result}
	}
	return s
}
