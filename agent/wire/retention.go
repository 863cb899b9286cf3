package wire

import "github.com/quiesced/quiesced/agent"

// RetentionRequest asks for what the configuration does not keep to be deleted.
type RetentionRequest struct {
	DryRun bool `json:"dry_run"` // decide, and delete nothing
}

// ParseRetentionRequest reads one request document strictly: a dry run that is misspelt
// deletes nothing.
func ParseRetentionRequest(doc []byte) (RetentionRequest, error) {
	return parse[RetentionRequest](doc)
}

// Retention is what retention decides, and what came of it.
type Retention struct {
	Snapshots []Retained `json:"snapshots"`
	Note      string     `json:"note,omitempty"` // why nothing is deleted, or not everything was that goes
}

// Retained is a snapshot, and what becomes of it: it stays, goes, was deleted, or failed.
type Retained struct {
	Snapshot
	Verdict string `json:"verdict"`
	Why     string `json:"why"`
	Error   string `json:"error,omitempty"`
}

// FromRetention is the JSON form, for an instance.
func FromRetention(r agent.Retention, in agent.Instance) Retention {
	w := Retention{Snapshots: make([]Retained, 0, len(r.Snapshots)), Note: r.Note}
	for _, one := range r.Snapshots {
		w.Snapshots = append(w.Snapshots, Retained{
			Snapshot: FromSnapshot(one.Snapshot, in), Verdict: string(one.Verdict), Why: one.Why, Error: one.Error,
		})
	}
	return w
}
