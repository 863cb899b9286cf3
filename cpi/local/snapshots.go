package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/quiesced/quiesced/cpi"
)

// SnapshotDisk clones the disk and returns the CID of the snapshot, which is durable by
// then.
func (s *Store) SnapshotDisk(disk string, metadata Object) (string, error) {
	if err := checkCID(disk); err != nil {
		return "", err
	}
	cid := newCID(snapshotPrefix)
	if err := s.snapshotDisk(cid, disk, metadata); err != nil {
		return "", notFound(err, "cannot snapshot disk %q", disk)
	}
	return cid, nil
}

// snapshotDisk comes to the clone by the shortest way: the disk's filesystem is frozen
// until then.
func (s *Store) snapshotDisk(cid, disk string, metadata Object) error {
	e, err := s.disks.find(disk)
	if err != nil {
		return err
	}
	source, err := e.open(e.path)
	if err != nil {
		return err
	}
	defer source.Close()
	if err := s.prepare(s.snapshots); err != nil {
		return err
	}
	began := time.Now()
	data, how, err := e.snapshot(s.snapshots, cid, source)
	if err != nil {
		return err
	}
	defer data.discard()
	fixed := time.Now()
	fmt.Fprintf(s.notes, "snapshot '%s' of disk '%s' created by %s in %d ms\n",
		cid, disk, how, fixed.Sub(began).Milliseconds())
	_, size, err := e.measure(data.File)
	if err != nil {
		return err
	}
	return s.snapshots.finish(s.snapshots.entry(e.driver, cid), data, snapshotSidecar{
		Disk:      disk,
		CreatedAt: fixed.UTC(),
		Method:    how,
		Size:      size,
		Metadata:  metadata,
	})
}

// DeleteSnapshot deletes a snapshot. One that is not there is a CloudError: a caller
// who took it for a success would forget snapshots that exist, if the CID is wrong.
func (s *Store) DeleteSnapshot(snapshot string) error {
	if err := checkCID(snapshot); err != nil {
		return err
	}
	err := s.alone(s.snapshots, func() error {
		e, err := s.snapshot(snapshot)
		if err != nil {
			return err
		}
		return s.snapshots.remove(e)
	})
	if err != nil {
		return failed(err, "cannot delete snapshot %q", snapshot)
	}
	return nil
}

// snapshot finds a snapshot. That it "is not there" is said of no snapshot whose folder
// is not there, which may be one on a filesystem that is not mounted: whoever
// keeps a list of snapshots may forget one of which it is said.
func (s *Store) snapshot(cid string) (entry, error) {
	if _, err := os.Stat(s.snapshots.dir); err != nil {
		return entry{}, err
	}
	e, err := s.snapshots.find(cid)
	if errors.Is(err, fs.ErrNotExist) {
		return entry{}, cpi.Errorf(cpi.CloudError, "snapshot %q is not there", cid)
	}
	return e, err
}

// Snapshots lists the snapshots of all disks. One whose sidecar is missing or damaged is
// listed without what that would tell.
func (s *Store) Snapshots() ([]cpi.SnapshotInfo, error) {
	all, err := s.snapshots.list()
	if errors.Is(err, fs.ErrNotExist) {
		// There are none, unless the root's filesystem is not mounted.
		_, err = os.Stat(s.disks.dir)
	}
	if err != nil {
		return nil, failed(err, "cannot list the snapshots")
	}
	infos := []cpi.SnapshotInfo{}
	for _, e := range all {
		info, err := s.describe(e)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was deleted just now
		}
		if err != nil {
			return nil, failed(err, "cannot list snapshot %q", e.cid)
		}
		infos = append(infos, info)
	}
	return infos, nil
}

func (s *Store) describe(e entry) (cpi.SnapshotInfo, error) {
	data, err := e.open(e.path)
	if err != nil {
		return cpi.SnapshotInfo{}, err
	}
	defer data.Close()
	used, size, err := e.measure(data)
	if err != nil {
		return cpi.SnapshotInfo{}, err
	}
	info := cpi.SnapshotInfo{CID: e.cid, Size: used, DiskSize: size}
	sidecar, err := s.snapshots.readSnapshot(e.cid)
	if err != nil {
		fmt.Fprintln(s.notes, err)
		return info, nil
	}
	info.DiskCID, info.Created = sidecar.Disk, sidecar.CreatedAt
	info.Metadata = sidecar.Metadata.values()
	return info, nil
}

// values are an object's values decoded.
func (o Object) values() map[string]any {
	values := map[string]any{}
	for key, raw := range o {
		var value any
		if json.Unmarshal(raw, &value) == nil {
			values[key] = value
		}
	}
	return values
}
