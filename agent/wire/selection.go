package wire

import (
	"fmt"
	"time"

	"github.com/quiesced/quiesced/agent"
)

// Selection is the argument of snapshots and delete_snapshots.
type Selection struct {
	CIDs     []string `json:"snapshot_cids,omitempty"`
	DiskCID  string   `json:"disk_cid,omitempty"`
	Trigger  string   `json:"trigger,omitempty"`
	Level    string   `json:"level,omitempty"`
	State    string   `json:"state,omitempty"`
	Clean    *bool    `json:"clean,omitempty"`
	Verified *bool    `json:"verified,omitempty"`
	Since    string   `json:"since,omitempty"` // RFC 3339
	Until    string   `json:"until,omitempty"` // RFC 3339
	Older    float64  `json:"older_than_seconds,omitempty"`
	Sort     string   `json:"sort,omitempty"`
	Reverse  bool     `json:"reverse,omitempty"`
	Limit    int      `json:"limit,omitempty"`
}

// ParseSelection reads one document and nothing after it. The error names the field that is
// wrong.
func ParseSelection(doc []byte) (agent.Selection, error) {
	w, err := parse[Selection](doc)
	if err != nil {
		return agent.Selection{}, err
	}
	s := agent.Selection{
		CIDs: w.CIDs, DiskCID: w.DiskCID, Trigger: agent.Trigger(w.Trigger), Level: agent.Level(w.Level), State: agent.SnapshotState(w.State),
		Clean: w.Clean, Verified: w.Verified, Older: duration(w.Older), Sort: agent.SortKey(w.Sort), Reverse: w.Reverse, Limit: w.Limit,
	}
	if s.Since, err = instant("since", w.Since); err != nil {
		return s, err
	}
	s.Until, err = instant("until", w.Until)
	return s, err
}

// instant reads a time, zero for none.
func instant(field, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("%s: %q is no time such as 2026-03-29T07:00:00Z", field, text)
	}
	return at, nil
}

// FromSelection is the selection's JSON form.
func FromSelection(s agent.Selection) Selection {
	return Selection{
		CIDs: s.CIDs, DiskCID: s.DiskCID, Trigger: string(s.Trigger), Level: string(s.Level), State: string(s.State),
		Clean: s.Clean, Verified: s.Verified, Since: stamp(s.Since), Until: stamp(s.Until), Older: s.Older.Seconds(),
		Sort: string(s.Sort), Reverse: s.Reverse, Limit: s.Limit,
	}
}

func stamp(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339Nano)
}
