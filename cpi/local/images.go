package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/cpi"
)

// Images keeps disks and snapshots as files under a root directory. Any number
// of processes may use one root at a time.
//
// Its errors are *cpi.Error: NoDiskSpace when the filesystem is full or a quota
// used up, DiskNotFound for a disk that is not there, CpiError for arguments
// that cannot be used, and CloudError for the rest.
type Images struct {
	disks, snapshots folder
	notes            io.Writer
}

// NewImages uses a root that exists: one that does not is a filesystem that is
// not mounted rather than an empty store. Notes on what was done go to notes.
func NewImages(root string, notes io.Writer) (*Images, error) {
	if !filepath.IsAbs(root) {
		return nil, cpi.Errorf(cpi.CpiError, "cannot use %q as root: not an absolute path", root)
	}
	info, err := os.Stat(root)
	if err != nil {
		return nil, cpi.Errorf(cpi.CpiError, "cannot use %q as root: %v", root, errors.Unwrap(err))
	}
	if !info.IsDir() {
		return nil, cpi.Errorf(cpi.CpiError, "cannot use %q as root: not a directory", root)
	}
	return &Images{
		disks:     folder{filepath.Join(root, "disks")},
		snapshots: folder{filepath.Join(root, "snapshots")},
		notes:     notes,
	}, nil
}

// CreateDisk makes an empty disk of so many MiB, all hole, and returns its CID.
func (m *Images) CreateDisk(mib int64, properties Object, vm string) (string, error) {
	if mib <= 0 || mib > math.MaxInt64>>20 {
		return "", cpi.Errorf(cpi.CpiError, "cannot create a disk of %d MiB", mib)
	}
	cid := newCID(diskPrefix)
	if err := m.createDisk(cid, mib<<20, properties, vm); err != nil {
		return "", failed(err, "cannot create a disk of %d MiB", mib)
	}
	return cid, nil
}

func (m *Images) createDisk(cid string, size int64, properties Object, vm string) error {
	if err := m.prepare(m.disks); err != nil {
		return err
	}
	image, err := m.disks.temporary(cid + imageSuffix)
	if err != nil {
		return err
	}
	defer image.discard()
	if err := image.Truncate(size); err != nil {
		return err
	}
	return m.disks.finish(cid, image, diskSidecar{
		VM:              vm,
		CreatedAt:       time.Now().UTC(),
		CloudProperties: properties,
	})
}

// HasDisk reports whether the disk is there.
func (m *Images) HasDisk(disk string) (bool, error) {
	if err := checkCID(disk); err != nil {
		return false, err
	}
	has, err := m.disks.has(disk)
	if err != nil {
		return false, failed(err, "cannot look for disk %q", disk)
	}
	return has, nil
}

// Disks returns the disks created for the VM, and those of which no VM is
// known, such as images linked in by hand: there is but one machine.
func (m *Images) Disks(vm string) ([]string, error) {
	all, err := m.disks.list()
	if err != nil {
		return nil, failed(err, "cannot list the disks")
	}
	disks := []string{}
	for _, disk := range all {
		sidecar, err := m.disks.readDisk(disk)
		if err != nil {
			return nil, failed(err, "cannot list the disks")
		}
		if sidecar.VM == "" || sidecar.VM == vm {
			disks = append(disks, disk)
		}
	}
	return disks, nil
}

// SnapshotDisk clones the disk's image and returns the CID of the snapshot,
// which is durable by then.
func (m *Images) SnapshotDisk(disk string, metadata Object) (string, error) {
	if err := checkCID(disk); err != nil {
		return "", err
	}
	source, err := m.disks.open(disk)
	if err != nil {
		return "", notFound(err, "cannot snapshot disk %q", disk)
	}
	defer source.Close()
	cid := newCID(snapshotPrefix)
	if err := m.snapshot(cid, disk, source, metadata); err != nil {
		return "", failed(err, "cannot snapshot disk %q", disk)
	}
	return cid, nil
}

// snapshot comes to the clone by the shortest way: the disk's filesystem is
// frozen until then.
func (m *Images) snapshot(cid, disk string, source *os.File, metadata Object) error {
	if err := m.prepare(m.snapshots); err != nil {
		return err
	}
	image, err := m.snapshots.temporary(cid + imageSuffix)
	if err != nil {
		return err
	}
	defer image.discard()
	began := time.Now()
	how, err := clone(image.File, source)
	if err != nil {
		return err
	}
	fixed := time.Now()
	fmt.Fprintf(m.notes, "snapshot '%s' of disk '%s' created by %s in %d ms\n",
		cid, disk, how, fixed.Sub(began).Milliseconds())
	info, err := image.Stat()
	if err != nil {
		return err
	}
	if err := image.Chmod(0o400); err != nil {
		return err
	}
	return m.snapshots.finish(cid, image, snapshotSidecar{
		Disk:      disk,
		CreatedAt: fixed.UTC(),
		Method:    how,
		Size:      info.Size(),
		Metadata:  metadata,
	})
}

// DeleteSnapshot deletes a snapshot. One that is not there is a CloudError:
// answered as a success, a wrong or unmounted root would make a caller forget
// snapshots that exist.
func (m *Images) DeleteSnapshot(snapshot string) error {
	if err := checkCID(snapshot); err != nil {
		return err
	}
	if err := m.delete(m.snapshots, snapshot); err != nil {
		return failed(err, "cannot delete snapshot %q", snapshot)
	}
	return nil
}

// DeleteDisk deletes a disk, of one that is a link the link alone. Its
// snapshots stay.
func (m *Images) DeleteDisk(disk string) error {
	if err := checkCID(disk); err != nil {
		return err
	}
	if err := m.delete(m.disks, disk); err != nil {
		return notFound(err, "cannot delete disk %q", disk)
	}
	return nil
}

// SetDiskMetadata overwrites the keys that are given in the disk's metadata.
func (m *Images) SetDiskMetadata(disk string, metadata Object) error {
	if err := checkCID(disk); err != nil {
		return err
	}
	if err := m.mergeMetadata(disk, metadata); err != nil {
		return notFound(err, "cannot set the metadata of disk %q", disk)
	}
	return nil
}

func (m *Images) mergeMetadata(disk string, metadata Object) error {
	unlock, err := m.disks.lock()
	if err != nil {
		return err
	}
	defer unlock()
	m.sweep(m.disks)
	if _, err := os.Lstat(m.disks.image(disk)); err != nil {
		return err
	}
	sidecar, err := m.disks.readDisk(disk)
	if err != nil {
		return err
	}
	sidecar.Metadata = sidecar.Metadata.merge(metadata)
	t, err := m.disks.writeSidecar(newCID(""), sidecar)
	if err != nil {
		return err
	}
	defer t.discard()
	if err := t.rename(m.disks.sidecar(disk)); err != nil {
		return err
	}
	return syncDir(m.disks.dir)
}

// prepare makes a folder ready for a new CID.
func (m *Images) prepare(f folder) error {
	if err := f.create(); err != nil {
		return err
	}
	m.sweep(f)
	return nil
}

// sweep fails no call: what lies there is only in the way of space.
func (m *Images) sweep(f folder) {
	if err := f.sweep(); err != nil {
		fmt.Fprintln(m.notes, err)
	}
}

func (m *Images) delete(f folder, cid string) error {
	unlock, err := f.lock()
	if err != nil {
		return err
	}
	defer unlock()
	m.sweep(f)
	return f.remove(cid)
}

// failed says what could not be done, and why, in BOSH's terms.
func failed(err error, format string, args ...any) error {
	t := cpi.CloudError
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		t = cpi.NoDiskSpace
	}
	return cpi.Errorf(t, "%s: %v", fmt.Sprintf(format, args...), err)
}

// notFound is failed for what is done to a disk that must be there.
func notFound(err error, format string, args ...any) error {
	if errors.Is(err, fs.ErrNotExist) {
		return cpi.Errorf(cpi.DiskNotFound, "%s: it is not there", fmt.Sprintf(format, args...))
	}
	return failed(err, format, args...)
}
