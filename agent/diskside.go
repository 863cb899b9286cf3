package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/quiesced/quiesced/cpi"
)

// side asks which of the two disks is in the place of the persistent one. It leaves the
// other detached.
func (m *mover) side(ctx context.Context) (DiskSide, error) {
	if m.disk.Mounts == nil || m.disk.Between == nil {
		return SideBefore, nil // the exchange was not even intended
	}
	if m.disk.New == "" {
		return m.sideAlone(ctx)
	}
	path, err := m.attach(ctx, m.disk.New)
	if errors.Is(err, cpi.DiskNotFound) {
		return m.sideAlone(ctx)
	}
	if err != nil {
		return "", err
	}
	exchanged, odd := m.disk.Between.IsOne(path)
	if err := m.detach(ctx, m.disk.New); err != nil {
		return "", errors.Join(odd, err)
	}
	if odd != nil { // it is the restored one, which was mounted before it was put back
		if exchanged, err = m.sideByDisk(ctx); err != nil {
			return "", errors.Join(odd, err)
		}
	}
	if exchanged {
		return SideRestored, nil
	}
	return SideBefore, nil
}

// sideByDisk asks the persistent disk.
func (m *mover) sideByDisk(ctx context.Context) (exchanged bool, err error) {
	path, err := m.attach(ctx, m.disk.Disk)
	if err != nil {
		return false, err
	}
	asBefore, err := m.disk.Between.IsOne(path)
	return !asBefore, err
}

// sideAlone asks the persistent disk where the CPI has no other any more: what its CID
// stands for is all that there is to be put in its place. The other CID is forgotten, so
// that nothing is deleted by it, should the CPI be wrong.
func (m *mover) sideAlone(ctx context.Context) (DiskSide, error) {
	path, err := m.attach(ctx, m.disk.Disk)
	if err != nil {
		return "", err
	}
	asBefore, odd := m.disk.Between.IsOne(path)
	if m.disk.New != "" {
		m.note(fmt.Sprintf("the CPI says that disk %q is not there any more: disk %q is taken as it is", m.disk.New, m.disk.Disk))
		if err := m.set(func(d *HeldDisk) { d.New, d.Back = "", false }); err != nil {
			return "", err
		}
	}
	switch {
	case odd != nil:
		m.note(fmt.Sprintf("disk %q is taken for the one before: %v", m.disk.Disk, odd))
	case !asBefore:
		return SideRestored, nil
	}
	return SideBefore, nil
}
