package local

import (
	"io"

	"github.com/quiesced/quiesced/cpi"
)

// The keys of the request's context.
const (
	contextRoot   = "root"   // where the disks lie
	contextDriver = "driver" // whose new disks are; may be missing
)

const apiVersion = 2

// Handlers are the methods of this CPI. Notes on what was done go to notes.
func Handlers(notes io.Writer) map[string]cpi.Handler {
	h := handlers{notes}
	return map[string]cpi.Handler{
		"info":              h.info,
		"create_disk":       h.createDisk,
		"has_disk":          h.hasDisk,
		"get_disks":         h.getDisks,
		"attach_disk":       h.attachDisk,
		"detach_disk":       h.detachDisk,
		"swap_disks":        h.swapDisks,
		"snapshot_disk":     h.snapshotDisk,
		"list_snapshots":    h.listSnapshots,
		"delete_snapshot":   h.deleteSnapshot,
		"delete_disk":       h.deleteDisk,
		"set_disk_metadata": h.setDiskMetadata,
	}
}

type handlers struct{ notes io.Writer }

// store binds the arguments and opens the root.
func (h handlers) store(r cpi.Request, args ...cpi.Arg) (*Store, error) {
	if err := r.Bind(args...); err != nil {
		return nil, err
	}
	root, ok := r.Context[contextRoot].(string)
	if !ok {
		return nil, cpi.Errorf(cpi.CpiError, "cannot find the disks: the context has no %q that is a string", contextRoot)
	}
	s, err := Open(root, h.notes)
	if err != nil {
		return nil, err
	}
	if value, there := r.Context[contextDriver]; there {
		if s.Driver, ok = value.(string); !ok {
			return nil, cpi.Errorf(cpi.CpiError, "cannot choose a driver: %q in the context is not a string", contextDriver)
		}
	}
	return s, nil
}

func (handlers) info(cpi.Request) (any, error) {
	return map[string]any{"api_version": apiVersion, "stemcell_formats": []string{}}, nil
}

func (h handlers) createDisk(r cpi.Request) (any, error) {
	var mib int64
	var properties Object
	var vm string
	s, err := h.store(r, cpi.Arg{Name: "size", Into: &mib},
		cpi.Arg{Name: "cloud_properties", Into: &properties}, cpi.Arg{Name: "vm_cid", Into: &vm, Nullable: true})
	if err != nil {
		return nil, err
	}
	return s.CreateDisk(mib, properties, vm)
}

func (h handlers) hasDisk(r cpi.Request) (any, error) {
	var disk string
	s, err := h.store(r, cpi.Arg{Name: "disk_cid", Into: &disk})
	if err != nil {
		return nil, err
	}
	return s.HasDisk(disk)
}

func (h handlers) getDisks(r cpi.Request) (any, error) {
	var vm string
	s, err := h.store(r, cpi.Arg{Name: "vm_cid", Into: &vm})
	if err != nil {
		return nil, err
	}
	return s.Disks(vm)
}

// attachDisk answers with a hint of where to find the disk, as version 2 has it. There
// is one VM, whatever its CID.
func (h handlers) attachDisk(r cpi.Request) (any, error) {
	var vm, disk string
	s, err := h.store(r, cpi.Arg{Name: "vm_cid", Into: &vm}, cpi.Arg{Name: "disk_cid", Into: &disk})
	if err != nil {
		return nil, err
	}
	at, err := s.AttachDisk(disk)
	return map[string]string{"path": at}, err
}

func (h handlers) detachDisk(r cpi.Request) (any, error) {
	var vm, disk string
	s, err := h.store(r, cpi.Arg{Name: "vm_cid", Into: &vm}, cpi.Arg{Name: "disk_cid", Into: &disk})
	if err != nil {
		return nil, err
	}
	return nil, s.DetachDisk(disk)
}

func (h handlers) swapDisks(r cpi.Request) (any, error) {
	var a, b string
	s, err := h.store(r, cpi.Arg{Name: "disk_cid", Into: &a}, cpi.Arg{Name: "other_cid", Into: &b})
	if err != nil {
		return nil, err
	}
	return nil, s.SwapDisks(a, b)
}

func (h handlers) listSnapshots(r cpi.Request) (any, error) {
	s, err := h.store(r)
	if err != nil {
		return nil, err
	}
	return s.Snapshots()
}

func (h handlers) snapshotDisk(r cpi.Request) (any, error) {
	var disk string
	var metadata Object
	s, err := h.store(r, cpi.Arg{Name: "disk_cid", Into: &disk}, cpi.Arg{Name: "metadata", Into: &metadata})
	if err != nil {
		return nil, err
	}
	return s.SnapshotDisk(disk, metadata)
}

func (h handlers) deleteSnapshot(r cpi.Request) (any, error) {
	var snapshot string
	s, err := h.store(r, cpi.Arg{Name: "snapshot_cid", Into: &snapshot})
	if err != nil {
		return nil, err
	}
	return nil, s.DeleteSnapshot(snapshot)
}

func (h handlers) deleteDisk(r cpi.Request) (any, error) {
	var disk string
	s, err := h.store(r, cpi.Arg{Name: "disk_cid", Into: &disk})
	if err != nil {
		return nil, err
	}
	return nil, s.DeleteDisk(disk)
}

func (h handlers) setDiskMetadata(r cpi.Request) (any, error) {
	var disk string
	var metadata Object
	s, err := h.store(r, cpi.Arg{Name: "disk_cid", Into: &disk}, cpi.Arg{Name: "metadata", Into: &metadata})
	if err != nil {
		return nil, err
	}
	return nil, s.SetDiskMetadata(disk, metadata)
}
