package diskcopy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
)

// version is that of the document. Keys may be added without a new one.
const version = 1

// document is a copy as it lies on the disk.
type document struct {
	Version   int             `json:"version"`
	Journal   string          `json:"journal_id"`
	Instance  instance        `json:"instance"`
	Sum       string          `json:"sha256"` // of the snapshots' bytes
	Snapshots json.RawMessage `json:"snapshots"`
}

type instance struct {
	Deployment string `json:"deployment"`
	Job        string `json:"job"`
	Index      int    `json:"index"`
	ID         string `json:"id"`
	AgentID    string `json:"agent_id"`
}

// encode writes a copy. It has no white space, which its sum depends on.
func encode(c agent.Copy) ([]byte, error) {
	entries := make([]json.RawMessage, 0, len(c.Snapshots))
	for _, s := range c.Snapshots {
		entry, err := wire.MarshalSnapshot(s)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry)
	}
	snapshots, err := json.Marshal(entries)
	if err != nil {
		return nil, err
	}
	return json.Marshal(document{Version: version, Journal: c.Journal, Instance: instance(c.Instance), Sum: sum(snapshots), Snapshots: snapshots})
}

func sum(doc []byte) string {
	hash := sha256.Sum256(doc)
	return hex.EncodeToString(hash[:])
}

// decode reads a copy. The error is agent.ErrBadCopy with what is wrong.
func decode(doc []byte) (agent.Copy, error) {
	var d document
	if err := json.Unmarshal(doc, &d); err != nil {
		return agent.Copy{}, fmt.Errorf("%w: %w", agent.ErrBadCopy, err)
	}
	if d.Version != version {
		return agent.Copy{}, fmt.Errorf("%w: it has version %d, and %d is known", agent.ErrBadCopy, d.Version, version)
	}
	if d.Journal == "" || sum(d.Snapshots) != d.Sum {
		return agent.Copy{}, fmt.Errorf("%w: it is damaged", agent.ErrBadCopy)
	}
	var entries []json.RawMessage
	if err := json.Unmarshal(d.Snapshots, &entries); err != nil {
		return agent.Copy{}, fmt.Errorf("%w: %w", agent.ErrBadCopy, err)
	}
	c := agent.Copy{Journal: d.Journal, Instance: agent.Instance(d.Instance)}
	for _, entry := range entries {
		s, err := wire.UnmarshalSnapshot(entry)
		if err != nil {
			return agent.Copy{}, fmt.Errorf("%w: %w", agent.ErrBadCopy, err)
		}
		c.Snapshots = append(c.Snapshots, s)
	}
	return c, nil
}
