package front

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"
)

// MethodSnapshotDisk is the one method that is not passed on as it is.
const MethodSnapshotDisk = "snapshot_disk"

// Self is the agent id of the director's own VM.
const Self = "self"

// Method is the method of a request, "" where it cannot be told. It reads no
// further than to the key's first occurrence: a director's first key.
func Method(document []byte) string {
	var method string
	found := errors.New("found")
	d := json.NewDecoder(bytes.NewReader(document))
	err := object(d, func(key string) error {
		if key != "method" {
			return d.Decode(new(json.RawMessage))
		}
		if err := d.Decode(&method); err != nil {
			return err
		}
		return found
	})
	if !errors.Is(err, found) {
		return ""
	}
	return method
}

// Snapshot is a request for a snapshot of a disk.
type Snapshot struct {
	Disk         string
	Deployment   string
	Job          string
	AgentID      string            // "" for an instance without a VM
	Tags         map[string]string // the metadata's other keys, those that are strings
	DirectorUUID string

	end   int  // offset of the metadata's closing brace in the document
	empty bool // nothing is in the metadata
}

// ParseSnapshot reads a request of snapshot_disk. Of a repeated key in the metadata
// the first occurrence counts, which is the director's own; what follows is a tag.
func ParseSnapshot(document []byte) (Snapshot, error) {
	if !utf8.Valid(document) {
		return Snapshot{}, errors.New("cannot read the request: it is not UTF-8")
	}
	var s Snapshot
	d := json.NewDecoder(bytes.NewReader(document))
	var seen []string
	err := object(d, func(key string) error {
		if slices.Contains(seen, key) {
			return fmt.Errorf("%q is there twice", key)
		}
		seen = append(seen, key)
		switch key {
		case "arguments":
			return s.arguments(d)
		case "context":
			return s.context(d)
		}
		return d.Decode(new(json.RawMessage))
	})
	if err == nil && !slices.Contains(seen, "arguments") {
		err = errors.New("it has no arguments")
	}
	if _, extra := d.Token(); err == nil && !errors.Is(extra, io.EOF) {
		err = errors.New("something follows it")
	}
	if err != nil {
		return Snapshot{}, fmt.Errorf("cannot read the request: %w", err)
	}
	return s, nil
}

// arguments reads [disk, metadata].
func (s *Snapshot) arguments(d *json.Decoder) error {
	if err := expect(d, '['); err != nil {
		return err
	}
	if err := d.Decode(&s.Disk); err != nil {
		return err
	}
	if s.Disk == "" {
		return errors.New("it names no disk")
	}
	metadata := map[string]json.RawMessage{}
	if err := object(d, func(key string) error {
		var value json.RawMessage
		err := d.Decode(&value)
		if _, twice := metadata[key]; !twice {
			metadata[key] = value
		}
		return err
	}); err != nil {
		return err
	}
	s.end, s.empty = int(d.InputOffset())-1, len(metadata) == 0
	if err := expect(d, ']'); err != nil {
		return err
	}
	return s.metadata(metadata)
}

func (s *Snapshot) metadata(all map[string]json.RawMessage) error {
	s.Tags = map[string]string{}
	own := map[string]*string{"deployment": &s.Deployment, "job": &s.Job, "agent_id": &s.AgentID}
	for key, value := range all {
		var text string
		err := json.Unmarshal(value, &text) // null is ""
		into, ok := own[key]
		switch {
		case ok && err != nil:
			return fmt.Errorf("%s is no string", key)
		case ok:
			*into = text
		case err == nil:
			s.Tags[key] = text
		}
	}
	return nil
}

func (s *Snapshot) context(d *json.Decoder) error {
	known := false
	return object(d, func(key string) error {
		if key != "director_uuid" || known {
			return d.Decode(new(json.RawMessage))
		}
		known = true
		return d.Decode(&s.DirectorUUID)
	})
}

// split cuts the document before its metadata's end, where something can be added.
func (s *Snapshot) split(document []byte) (first, second []byte) {
	return document[:s.end], document[s.end:]
}

// added is strings as they are added to the metadata.
func (s *Snapshot) added(keysAndValues ...string) []byte {
	var text []byte
	for i := 0; i+1 < len(keysAndValues); i += 2 {
		if i > 0 || !s.empty {
			text = append(text, ',')
		}
		key, _ := json.Marshal(keysAndValues[i])
		value, _ := json.Marshal(keysAndValues[i+1])
		text = append(append(append(text, key...), ':'), value...)
	}
	return text
}

// object calls value with each key of the object that comes next; value reads what
// belongs to it.
func object(d *json.Decoder, value func(key string) error) error {
	if err := expect(d, '{'); err != nil {
		return err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		if err := value(key.(string)); err != nil {
			return err
		}
	}
	return expect(d, '}')
}

// expect reads a bracket.
func expect(d *json.Decoder, want json.Delim) error {
	got, err := d.Token()
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%v is not there", want)
	}
	return nil
}
