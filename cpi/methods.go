package cpi

import (
	"context"
	"encoding/json"
	"fmt"
)

const (
	methodInfo           = "info"
	methodHasDisk        = "has_disk"
	methodGetDisks       = "get_disks"
	methodSnapshotDisk   = "snapshot_disk"
	methodDeleteSnapshot = "delete_snapshot"
)

// Info is what a CPI says of itself.
type Info struct {
	APIVersion      int
	StemcellFormats []string
}

// Info asks the CPI what it is, which is a director's first call. A CPI that
// reports no version, or one below 2, is refused with an error.
func (c *Client) Info(ctx context.Context) (Info, error) {
	result, err := c.Do(ctx, "", methodInfo)
	if err != nil {
		return Info{}, err
	}
	var wire struct {
		APIVersion      int      `json:"api_version"`
		StemcellFormats []string `json:"stemcell_formats"`
	}
	if err := json.Unmarshal(result, &wire); err != nil {
		return Info{}, c.unexpected(methodInfo, "an object with api_version and stemcell_formats")
	}
	if wire.APIVersion < defaultVersion {
		return Info{}, fmt.Errorf("cannot use %q: its api_version is %d, and at least %d is needed",
			c.Path, wire.APIVersion, defaultVersion)
	}
	return Info(wire), nil
}

// HasDisk reports whether the CPI knows the disk.
func (c *Client) HasDisk(ctx context.Context, disk string) (bool, error) {
	result, err := c.Do(ctx, "", methodHasDisk, disk)
	if err != nil {
		return false, err
	}
	var has *bool
	if json.Unmarshal(result, &has) != nil || has == nil {
		return false, c.unexpected(methodHasDisk, "a boolean")
	}
	return *has, nil
}

// GetDisks returns the CIDs of the VM's disks. Some CPIs count its root and
// ephemeral disks too.
func (c *Client) GetDisks(ctx context.Context, vm string) ([]string, error) {
	result, err := c.Do(ctx, "", methodGetDisks, vm)
	if err != nil {
		return nil, err
	}
	var disks []string
	if json.Unmarshal(result, &disks) != nil || disks == nil {
		return nil, c.unexpected(methodGetDisks, "a list of CIDs")
	}
	return disks, nil
}

// SnapshotDisk takes a snapshot in one go and returns its CID. A run that
// freezes prepares the call instead: Prepare, Arm, Send, Wait, SnapshotCID.
func (c *Client) SnapshotDisk(ctx context.Context, disk string, m SnapshotMetadata) (string, error) {
	result, err := c.Do(ctx, "", methodSnapshotDisk, disk, m)
	if err != nil {
		return "", err
	}
	return SnapshotCID(disk, result)
}

// PrepareSnapshot is Prepare for snapshot_disk.
func (c *Client) PrepareSnapshot(dir, disk string, m SnapshotMetadata) (*Call, error) {
	return c.Prepare(dir, methodSnapshotDisk, disk, m)
}

// DeleteSnapshot deletes a snapshot. What a CPI answers for one that is not
// there differs between CPIs.
func (c *Client) DeleteSnapshot(ctx context.Context, snapshot string) error {
	_, err := c.Do(ctx, "", methodDeleteSnapshot, snapshot)
	return err
}

func (c *Client) unexpected(method, want string) error {
	return fmt.Errorf("cannot use the answer of %q to %s: the result is not %s", c.Path, method, want)
}
