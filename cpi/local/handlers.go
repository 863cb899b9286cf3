package local

import (
	"io"

	"github.com/quiesced/quiesced/cpi"
)

// contextRoot is the key of the request's context that holds the root.
const contextRoot = "root"

const apiVersion = 2

// Handlers are the methods of this CPI. Notes on what was done go to notes.
func Handlers(notes io.Writer) map[string]cpi.Handler {
	h := handlers{notes}
	return map[string]cpi.Handler{
		"info":              h.info,
		"create_disk":       h.createDisk,
		"has_disk":          h.hasDisk,
		"get_disks":         h.getDisks,
		"snapshot_disk":     h.snapshotDisk,
		"delete_snapshot":   h.deleteSnapshot,
		"delete_disk":       h.deleteDisk,
		"set_disk_metadata": h.setDiskMetadata,
	}
}

type handlers struct{ notes io.Writer }

// images binds the arguments and opens the root.
func (h handlers) images(r cpi.Request, args ...cpi.Arg) (*Images, error) {
	if err := r.Bind(args...); err != nil {
		return nil, err
	}
	root, ok := r.Context[contextRoot].(string)
	if !ok {
		return nil, cpi.Errorf(cpi.CpiError, "cannot find the disks: the context has no %q that is a string", contextRoot)
	}
	return NewImages(root, h.notes)
}

func (handlers) info(cpi.Request) (any, error) {
	return map[string]any{"api_version": apiVersion, "stemcell_formats": []string{}}, nil
}

func (h handlers) createDisk(r cpi.Request) (any, error) {
	var mib int64
	var properties Object
	var vm string
	m, err := h.images(r, cpi.Arg{Name: "size", Into: &mib},
		cpi.Arg{Name: "cloud_properties", Into: &properties}, cpi.Arg{Name: "vm_cid", Into: &vm})
	if err != nil {
		return nil, err
	}
	return m.CreateDisk(mib, properties, vm)
}

func (h handlers) hasDisk(r cpi.Request) (any, error) {
	var disk string
	m, err := h.images(r, cpi.Arg{Name: "disk_cid", Into: &disk})
	if err != nil {
		return nil, err
	}
	return m.HasDisk(disk)
}

func (h handlers) getDisks(r cpi.Request) (any, error) {
	var vm string
	m, err := h.images(r, cpi.Arg{Name: "vm_cid", Into: &vm})
	if err != nil {
		return nil, err
	}
	return m.Disks(vm)
}

func (h handlers) snapshotDisk(r cpi.Request) (any, error) {
	var disk string
	var metadata Object
	m, err := h.images(r, cpi.Arg{Name: "disk_cid", Into: &disk}, cpi.Arg{Name: "metadata", Into: &metadata})
	if err != nil {
		return nil, err
	}
	return m.SnapshotDisk(disk, metadata)
}

func (h handlers) deleteSnapshot(r cpi.Request) (any, error) {
	var snapshot string
	m, err := h.images(r, cpi.Arg{Name: "snapshot_cid", Into: &snapshot})
	if err != nil {
		return nil, err
	}
	return nil, m.DeleteSnapshot(snapshot)
}

func (h handlers) deleteDisk(r cpi.Request) (any, error) {
	var disk string
	m, err := h.images(r, cpi.Arg{Name: "disk_cid", Into: &disk})
	if err != nil {
		return nil, err
	}
	return nil, m.DeleteDisk(disk)
}

func (h handlers) setDiskMetadata(r cpi.Request) (any, error) {
	var disk string
	var metadata Object
	m, err := h.images(r, cpi.Arg{Name: "disk_cid", Into: &disk}, cpi.Arg{Name: "metadata", Into: &metadata})
	if err != nil {
		return nil, err
	}
	return nil, m.SetDiskMetadata(disk, metadata)
}
