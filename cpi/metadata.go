package cpi

import (
	"bytes"
	"maps"
	"slices"
)

// SnapshotMetadata is the second argument of snapshot_disk: for whom a
// snapshot is taken.
type SnapshotMetadata struct {
	Deployment   string
	Job          string
	Index        int
	DirectorName string
	DirectorUUID string

	// AgentID is null in the document when it is empty, as for an instance
	// without a VM; a director's own VM has "self".
	AgentID    string
	InstanceID string

	// Tags follow, in the order of their names. A tag named like one of the
	// keys above is left out: repeated, it would mislead a reader who takes a
	// key's last occurrence.
	Tags map[string]string
}

// MarshalJSON keeps the director's order of keys.
func (m SnapshotMetadata) MarshalJSON() ([]byte, error) {
	var agent any
	if m.AgentID != "" {
		agent = m.AgentID
	}
	o := newObject()
	o.add("deployment", m.Deployment)
	o.add("job", m.Job)
	o.add("index", m.Index)
	o.add("director_name", m.DirectorName)
	o.add("director_uuid", m.DirectorUUID)
	o.add("agent_id", agent)
	o.add("instance_id", m.InstanceID)
	for _, name := range slices.Sorted(maps.Keys(m.Tags)) {
		o.add(name, m.Tags[name])
	}
	return o.close()
}

// object writes a JSON object whose keys stay in the order in which they came,
// the first of equal ones winning.
type object struct {
	text bytes.Buffer
	seen map[string]bool
	err  error
}

func newObject() *object {
	o := &object{seen: map[string]bool{}}
	o.text.WriteByte('{')
	return o
}

func (o *object) add(key string, value any) {
	if o.seen[key] || o.err != nil {
		return
	}
	if len(o.seen) > 0 {
		o.text.WriteByte(',')
	}
	o.seen[key] = true
	o.write(key)
	o.text.WriteByte(':')
	o.write(value)
}

func (o *object) write(v any) {
	text, err := encode(v)
	if err != nil && o.err == nil {
		o.err = err
	}
	o.text.Write(text)
}

func (o *object) close() ([]byte, error) {
	o.text.WriteByte('}')
	return o.text.Bytes(), o.err
}
