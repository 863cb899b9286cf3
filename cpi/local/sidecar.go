package local

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"time"
)

// Object is a JSON object whose values are kept as they came.
type Object map[string]json.RawMessage

// diskSidecar is root/disks/CID.json.
type diskSidecar struct {
	VM              string    `json:"vm_cid,omitempty"`
	CreatedAt       time.Time `json:"created_at,omitzero"`
	CloudProperties Object    `json:"cloud_properties,omitempty"`
	Metadata        Object    `json:"metadata,omitempty"`
}

// snapshotSidecar is root/snapshots/CID.json.
type snapshotSidecar struct {
	Disk string `json:"disk_cid"`

	// CreatedAt is when the clone was complete.
	CreatedAt time.Time `json:"created_at"`

	Method   method `json:"method"`
	Size     int64  `json:"size"` // of the disk, in bytes
	Metadata Object `json:"metadata"`
}

// readDisk returns the disk's sidecar, an empty one if the disk has none.
func (f folder) readDisk(cid string) (diskSidecar, error) {
	var s diskSidecar
	text, err := os.ReadFile(f.sidecar(cid))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("cannot read %q: %w", f.sidecar(cid), err)
	}
	return s, nil
}

// writeSidecar returns the sidecar durable under a temporary name.
func (f folder) writeSidecar(name string, sidecar any) (*temporary, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(sidecar); err != nil {
		return nil, err
	}
	t, err := f.temporary(name + sidecarSuffix)
	if err != nil {
		return nil, err
	}
	if _, err = t.Write(text.Bytes()); err == nil {
		err = t.Sync()
	}
	if err != nil {
		t.discard()
		return nil, err
	}
	return t, nil
}

// merge overwrites the keys that are given and keeps the others.
func (o Object) merge(given Object) Object {
	merged := maps.Clone(o)
	if merged == nil {
		merged = Object{}
	}
	maps.Copy(merged, given)
	return merged
}
