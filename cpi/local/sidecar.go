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

// UnmarshalJSON keeps the first of equal keys. In the metadata of a snapshot that is
// the director's own; what repeats it is a tag.
func (o *Object) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.Join(err, errors.New("not an object"))
	}
	*o = Object{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		if name, _ := key.(string); (*o)[name] == nil {
			(*o)[name] = value
		}
	}
	return nil
}

// diskSidecar is root/disks/CID.json. It tells of the CID and how it came to be, and
// stays with it when disks are swapped.
type diskSidecar struct {
	VM        string    `json:"vm_cid,omitempty"`
	CreatedAt time.Time `json:"created_at,omitzero"`

	// Size is what was asked for, in bytes. A subvolume is not bound to it.
	Size int64 `json:"size,omitempty"`

	CreatedFrom     *origin `json:"created_from,omitempty"`
	CloudProperties Object  `json:"cloud_properties,omitempty"`
	Metadata        Object  `json:"metadata,omitempty"`
}

// origin is the snapshot that a disk was made from.
type origin struct {
	Snapshot string `json:"snapshot_cid"`
	Disk     string `json:"disk_cid,omitempty"` // of which the snapshot is
}

// snapshotSidecar is root/snapshots/CID.json.
type snapshotSidecar struct {
	Disk string `json:"disk_cid"`

	// CreatedAt is when the clone was complete.
	CreatedAt time.Time `json:"created_at"`

	Method   method `json:"method"`
	Size     int64  `json:"size,omitempty"` // of the disk, in bytes; 0 for subvolumes
	Metadata Object `json:"metadata"`
}

// readDisk returns the disk's sidecar, an empty one if the disk has none.
func (f folder) readDisk(cid string) (diskSidecar, error) {
	var s diskSidecar
	err := f.read(cid, &s)
	return s, err
}

// readSnapshot is readDisk of a snapshot.
func (f folder) readSnapshot(cid string) (snapshotSidecar, error) {
	var s snapshotSidecar
	err := f.read(cid, &s)
	return s, err
}

func (f folder) read(cid string, into any) error {
	text, err := os.ReadFile(f.sidecar(cid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("cannot read %q: %w", f.sidecar(cid), err)
	}
	return nil
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
