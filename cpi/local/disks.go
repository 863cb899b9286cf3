package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/cpi"
)

// propertyDriver is the cloud property that names the driver of a new disk.
const propertyDriver = "driver"

// CreateDisk makes a disk of so many MiB and returns its CID: an empty one, or from the
// snapshot that the property snapshot_cid names. That is of the snapshot's driver and
// not smaller. The sizes of subvolumes are kept in the sidecar, and heeded by nobody.
func (s *Store) CreateDisk(mib int64, properties Object, vm string) (string, error) {
	if mib <= 0 || mib > math.MaxInt64>>20 {
		return "", cpi.Errorf(cpi.CpiError, "cannot create a disk of %d MiB", mib)
	}
	cid := newCID(diskPrefix)
	sidecar := diskSidecar{VM: vm, Size: mib << 20, CloudProperties: properties}
	if err := s.createDisk(cid, sidecar); err != nil {
		return "", failed(err, "cannot create a disk of %d MiB", mib)
	}
	return cid, nil
}

func (s *Store) createDisk(cid string, sidecar diskSidecar) error {
	source, from, err := s.source(sidecar.CloudProperties)
	if err != nil {
		return err
	}
	if source != nil {
		defer source.Close()
	}
	sidecar.CreatedFrom = from.origin
	if err := s.prepare(s.disks); err != nil {
		return err
	}
	data, err := from.disk(s.disks, cid, sidecar.Size, source)
	if err != nil {
		return err
	}
	defer data.discard()
	sidecar.CreatedAt = time.Now().UTC()
	return s.disks.finish(s.disks.entry(from.driver, cid), data, sidecar)
}

// beginning is by whom a new disk is made, and from which snapshot, if from one.
type beginning struct {
	driver
	origin *origin
}

// source reads what the properties say of a new disk. The file is the data of the
// snapshot, nil for an empty disk.
func (s *Store) source(properties Object) (*os.File, beginning, error) {
	name, err := properties.text(propertyDriver)
	if err != nil {
		return nil, beginning{}, err
	}
	snapshot, err := properties.text(cpi.PropertySnapshot)
	if err != nil {
		return nil, beginning{}, err
	}
	if _, asked := properties[cpi.PropertySnapshot]; asked {
		return s.fromSnapshot(snapshot, name)
	}
	if name == "" {
		name = s.Driver
	}
	d, err := driverNamed(name)
	return nil, beginning{driver: d}, err
}

func (s *Store) fromSnapshot(snapshot, name string) (*os.File, beginning, error) {
	if err := checkCID(snapshot); err != nil {
		return nil, beginning{}, err
	}
	e, err := s.snapshot(snapshot)
	if err != nil {
		return nil, beginning{}, err
	}
	if name != "" && name != e.name() {
		return nil, beginning{}, cpi.Errorf(cpi.CpiError, "snapshot %q is of driver %q, not %q", snapshot, e.name(), name)
	}
	sidecar, err := s.snapshots.readSnapshot(snapshot)
	if err != nil {
		fmt.Fprintln(s.notes, err) // it names the disk, and no more
	}
	source, err := e.open(e.path)
	return source, beginning{e.driver, &origin{snapshot, sidecar.Disk}}, err
}

// HasDisk reports whether the disk is there.
func (s *Store) HasDisk(disk string) (bool, error) {
	if err := checkCID(disk); err != nil {
		return false, err
	}
	_, err := s.disks.find(disk)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, failed(err, "cannot look for disk %q", disk)
	}
	return err == nil, nil
}

// Disks returns the disks created for the VM, and those of which no VM is known, such
// as images linked in by hand: there is but one machine.
func (s *Store) Disks(vm string) ([]string, error) {
	all, err := s.disks.list()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, failed(err, "cannot list the disks")
	}
	disks := []string{}
	for _, disk := range all {
		sidecar, err := s.disks.readDisk(disk.cid)
		if err != nil {
			return nil, failed(err, "cannot list the disks")
		}
		if sidecar.VM == "" || sidecar.VM == vm {
			disks = append(disks, disk.cid)
		}
	}
	return disks, nil
}

// AttachDisk makes the disk usable and returns where: the loop device of an image, which
// is the one that is there already if there is one, or a subvolume's directory.
func (s *Store) AttachDisk(disk string) (at string, err error) {
	err = s.withDisk(disk, func(e entry) error {
		at, err = e.attach(e.path)
		return err
	})
	if err != nil {
		return "", notFound(err, "cannot attach disk %q", disk)
	}
	return at, nil
}

// DetachDisk lets the image's loop device go. It does nothing for a disk that is not
// attached, and refuses one that is in use, such as mounted.
func (s *Store) DetachDisk(disk string) error {
	err := s.withDisk(disk, func(e entry) error { return e.detach(e.path) })
	if err != nil {
		return notFound(err, "cannot detach disk %q", disk)
	}
	return nil
}

// DeleteDisk deletes a disk that is not attached, of one that is a link the link alone.
// Its snapshots stay.
func (s *Store) DeleteDisk(disk string) error {
	err := s.withDisk(disk, func(e entry) error {
		err := notAttached(e)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // what a link leads to may be gone
			return err
		}
		return s.disks.remove(e)
	})
	if err != nil {
		return notFound(err, "cannot delete disk %q", disk)
	}
	return nil
}

func notAttached(e entry) error {
	at, err := e.attached(e.path)
	if err == nil && at != "" {
		err = fmt.Errorf("disk %q is attached (%s)", e.cid, at)
	}
	return err
}

// SwapDisks exchanges the data of two disks that are not attached. What holds it
// changes places where it lies, behind links, so that a path to an image means the other
// disk's data afterwards. The sidecars stay: that one exchange is all that happens.
func (s *Store) SwapDisks(a, b string) error {
	err := s.withDisk(a, func(one entry) error {
		other, err := s.disk(b)
		if err != nil {
			return err
		}
		return swap(one, other)
	})
	if err != nil {
		return notFound(err, "cannot swap disks %q and %q", a, b)
	}
	return nil
}

func swap(one, other entry) error {
	if one.driver != other.driver {
		return cpi.Errorf(cpi.CpiError, "they are not of one driver")
	}
	if err := errors.Join(notAttached(one), notAttached(other)); err != nil {
		return err
	}
	a, err := one.target()
	if err != nil {
		return err
	}
	b, err := other.target()
	if err != nil {
		return err
	}
	if a == b {
		return cpi.Errorf(cpi.CpiError, "they are one")
	}
	if err := exchange(a, b); err != nil {
		return err
	}
	return errors.Join(syncDir(filepath.Dir(a)), syncDir(filepath.Dir(b)))
}

func exchange(a, b string) error {
	err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	switch {
	case errors.Is(err, unix.EXDEV):
		return fmt.Errorf("%q and %q are not on one filesystem, or one mount of it", a, b)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("one of %q and %q is a mount point", a, b)
	case err != nil:
		return fmt.Errorf("cannot exchange %q and %q: %w", a, b, err)
	}
	return nil
}

// SetDiskMetadata overwrites the keys that are given in the disk's metadata.
func (s *Store) SetDiskMetadata(disk string, metadata Object) error {
	err := s.withDisk(disk, func(entry) error { return s.mergeMetadata(disk, metadata) })
	if err != nil {
		return notFound(err, "cannot set the metadata of disk %q", disk)
	}
	return nil
}

func (s *Store) mergeMetadata(disk string, metadata Object) error {
	sidecar, err := s.disks.readDisk(disk)
	if err != nil {
		return err
	}
	sidecar.Metadata = sidecar.Metadata.merge(metadata)
	t, err := s.disks.writeSidecar(newCID(""), sidecar)
	if err != nil {
		return err
	}
	defer t.discard()
	if err := t.rename(s.disks.sidecar(disk)); err != nil {
		return err
	}
	return syncDir(s.disks.dir)
}

// withDisk finds a disk and keeps others from changing any until do has returned.
func (s *Store) withDisk(disk string, do func(entry) error) error {
	if err := checkCID(disk); err != nil {
		return err
	}
	return s.alone(s.disks, func() error {
		e, err := s.disk(disk)
		if err != nil {
			return err
		}
		return do(e)
	})
}

func (s *Store) disk(cid string) (entry, error) {
	if err := checkCID(cid); err != nil {
		return entry{}, err
	}
	e, err := s.disks.find(cid)
	if errors.Is(err, fs.ErrNotExist) {
		return entry{}, cpi.Errorf(cpi.DiskNotFound, "disk %q is not there", cid)
	}
	return e, err
}

// text returns a property that is a string, or "" if it is not there.
func (o Object) text(key string) (text string, err error) {
	raw, ok := o[key]
	if ok && json.Unmarshal(raw, &text) != nil {
		return "", cpi.Errorf(cpi.CpiError, "cloud property %q is not a string", key)
	}
	return text, nil
}
