package cpi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	methodCreateDisk = "create_disk"
	methodDeleteDisk = "delete_disk"
	methodAttachDisk = "attach_disk"
	methodDetachDisk = "detach_disk"

	// These two are no methods of BOSH: a CPI may have them or not.
	methodListSnapshots = "list_snapshots"
	methodSwapDisks     = "swap_disks"
)

// PropertySnapshot is the cloud property of create_disk that names a snapshot whose
// content the disk shall have. Not every CPI heeds it.
const PropertySnapshot = "snapshot_cid"

// CreateDisk makes a disk of so many MiB and returns its CID. The VM is the one that it
// will be attached to, or "" for none in particular. A disk from a snapshot, which
// PropertySnapshot names, must be as large as the snapshotted disk at least.
func (c *Client) CreateDisk(ctx context.Context, sizeMiB int64, cloudProperties map[string]any, vm string) (string, error) {
	result, err := c.Do(ctx, "", methodCreateDisk, createDisk(sizeMiB, cloudProperties, vm)...)
	if err != nil {
		return "", err
	}
	return c.DiskCID(result)
}

// PrepareCreateDisk is Prepare for create_disk: a call that outlives its caller, so that
// the CID is not lost with him. DiskCID reads its answer.
func (c *Client) PrepareCreateDisk(dir string, sizeMiB int64, cloudProperties map[string]any, vm string) (*Call, error) {
	return c.Prepare(dir, methodCreateDisk, createDisk(sizeMiB, cloudProperties, vm)...)
}

// createDisk are the arguments of create_disk.
func createDisk(sizeMiB int64, cloudProperties map[string]any, vm string) []any {
	if cloudProperties == nil {
		cloudProperties = map[string]any{}
	}
	var where any // null for no VM, as a director sends it
	if vm != "" {
		where = vm
	}
	return []any{sizeMiB, cloudProperties, where}
}

// DiskCID reads the result of create_disk.
func (c *Client) DiskCID(result json.RawMessage) (string, error) {
	var disk string
	if json.Unmarshal(result, &disk) != nil || disk == "" {
		return "", c.unexpected(methodCreateDisk, "a CID")
	}
	return disk, nil
}

// DeleteDisk deletes a disk, which must not be attached. A CPI answers DiskNotFound for
// one that is not there, or success.
func (c *Client) DeleteDisk(ctx context.Context, disk string) error {
	_, err := c.Do(ctx, "", methodDeleteDisk, disk)
	return err
}

// AttachDisk attaches a disk to a VM and returns where it is to be found there: the
// path of its device or, where a disk is no device, of its directory. It is an error if
// the CPI gives a hint of another kind, as some do that leave the search for the device
// to bosh-agent; the disk is attached then.
func (c *Client) AttachDisk(ctx context.Context, vm, disk string) (string, error) {
	result, err := c.Do(ctx, "", methodAttachDisk, vm, disk)
	if err != nil {
		return "", err
	}
	path, ok := hintedPath(result)
	if !ok {
		return "", c.unexpected(methodAttachDisk, "a device's path, nor an object with one, but "+shown(result))
	}
	return path, nil
}

// hintedPath reads a disk hint: a string, or an object with the key path.
func hintedPath(hint json.RawMessage) (string, bool) {
	var path string
	if json.Unmarshal(hint, &path) != nil {
		var object map[string]json.RawMessage
		if json.Unmarshal(hint, &object) != nil || !decodeKey(object, "path", &path) {
			return "", false
		}
	}
	return path, filepath.IsAbs(path)
}

// shown is a hint as an error may quote it: of an object the keys alone, since the
// values can be passwords (iscsi_settings).
func shown(hint json.RawMessage) string {
	var object map[string]json.RawMessage
	if json.Unmarshal(hint, &object) == nil && object != nil {
		return fmt.Sprintf("an object with the keys %q", slices.Sorted(maps.Keys(object)))
	}
	return tail(hint)
}

// DetachDisk detaches a disk from a VM. A CPI answers DiskNotAttached for one that is
// not attached, or success.
func (c *Client) DetachDisk(ctx context.Context, vm, disk string) error {
	_, err := c.Do(ctx, "", methodDetachDisk, vm, disk)
	return err
}

// SnapshotInfo is what a CPI's list tells of a snapshot. What is not known is zero.
type SnapshotInfo struct {
	CID     string    `json:"snapshot_cid"`
	DiskCID string    `json:"disk_cid,omitempty"`
	Created time.Time `json:"created_at,omitzero"`

	// Size is what the snapshot's data takes, in bytes: without holes, and with what
	// it shares with the disk or with other snapshots.
	Size int64 `json:"size,omitempty"`

	// DiskSize is the size of the disk when it was snapshotted, in bytes.
	DiskSize int64 `json:"disk_size,omitempty"`

	// Metadata is what snapshot_disk was given.
	Metadata map[string]any `json:"metadata,omitempty"`
}

// ListSnapshots returns all snapshots that the CPI has, of any disk, in no order. The
// method is an extension; of the error of a CPI without it CannotDo is true.
func (c *Client) ListSnapshots(ctx context.Context) ([]SnapshotInfo, error) {
	result, err := c.Do(ctx, "", methodListSnapshots)
	if err != nil {
		return nil, err
	}
	var snapshots []SnapshotInfo
	if json.Unmarshal(result, &snapshots) != nil || snapshots == nil {
		return nil, c.unexpected(methodListSnapshots, "a list of snapshots")
	}
	seen := map[string]bool{}
	for i, s := range snapshots {
		if s.CID == "" || seen[s.CID] || s.Size < 0 || s.DiskSize < 0 {
			return nil, c.unexpected(methodListSnapshots, fmt.Sprintf("a list of snapshots from entry %d (%q) on", i, s.CID))
		}
		seen[s.CID] = true
	}
	return snapshots, nil
}

// SwapDisks exchanges what two disks hold, at one moment: afterwards each CID stands
// for what the other stood for. The method is an extension; of the error of a CPI
// without it CannotDo is true.
func (c *Client) SwapDisks(ctx context.Context, a, b string) error {
	_, err := c.Do(ctx, "", methodSwapDisks, a, b)
	return err
}

// The texts by which a director, too, knows that a CPI has no such method, under types
// that say something else.
var noSuchMethod = map[string]string{
	"InvalidCall":                   "Method is not known, got",
	typePrefix + string(CloudError): "Invalid Method:",
}

// CannotDo reports whether an error says that the CPI does not have the method that was
// called: it did nothing, and never will.
func CannotDo(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	text, ok := noSuchMethod[e.wireType()]
	return e.Type == NotImplemented || e.Type == NotSupported || ok && strings.HasPrefix(e.Message, text)
}
