package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce/failpoint"
	"github.com/quiesced/quiesced/quiesce/remount"
)

// mover does to a disk what a restore needs, and undoes it. What is durable comes first:
// put says how.
type mover struct {
	agent *Agent
	run   *Run
	disk  HeldDisk
	put   func(HeldDisk) error
	note  func(string)
	timed func(Phase, time.Time)
	why   error // why the disks were exchanged once more, nil if they were not
}

// set makes a change durable.
func (m *mover) set(change func(*HeldDisk)) error {
	next := m.disk
	change(&next)
	if err := m.put(next); err != nil {
		return err
	}
	m.disk = next
	return nil
}

// cpi is the CPI, each of whose calls is recorded before it can do anything: it outlives
// the daemon, and whoever comes later must not act beside it. What it prints lies in dir.
func (m *mover) cpi(dir string) (*cpi.Client, error) {
	if m.agent.CPI == nil {
		return nil, errors.New("no CPI is configured (cpi.path)")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make room for what the CPI prints: %w", err)
	}
	c := *m.agent.CPI
	c.TempDir, c.Keep = dir, true
	c.Starting = func(dir string, p cpi.Process) error {
		return m.set(func(d *HeldDisk) { d.Call = &DiskCall{Dir: dir, Process: p, Boot: bootID()} })
	}
	return &c, nil
}

// runDir holds what the CPI prints for a run.
func (a *Agent) runDir(id string) string { return filepath.Join(a.Settings.StateDir, "runs", id) }

// callDir holds what the CPI prints for a run that is of use to nobody later. It lies
// beside the socket: a disk is put back in its place where the state directory is full.
func (a *Agent) callDir(id string) string { return filepath.Join(a.Freezer.Dir, "calls-"+id) }

// call makes a call of the CPI that ends by itself, whatever becomes of the run: what is
// cut short would be asked for again.
func (m *mover) call(ctx context.Context, do func(context.Context, *cpi.Client) error) error {
	c, err := m.cpi(m.agent.callDir(m.run.ID()))
	if err != nil {
		return err
	}
	c.Keep = false // it may be tried again every minute
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.agent.Settings.Budgets.Resume)
	defer cancel()
	return do(ctx, c)
}

// attach attaches a disk, if it is not, and says where it is.
func (m *mover) attach(ctx context.Context, cid string) (path string, err error) {
	err = m.call(ctx, func(ctx context.Context, c *cpi.Client) error {
		path, err = c.AttachDisk(ctx, m.agent.Settings.VM, cid)
		return err
	})
	failpoint.Hit("attached")
	if err != nil {
		return "", fmt.Errorf("cannot attach disk %q: %w", cid, err)
	}
	return path, nil
}

// detach detaches a disk, if it is attached.
func (m *mover) detach(ctx context.Context, cid string) error {
	err := m.call(ctx, func(ctx context.Context, c *cpi.Client) error { return c.DetachDisk(ctx, m.agent.Settings.VM, cid) })
	failpoint.Hit("detached")
	if err != nil && !errors.Is(err, cpi.DiskNotAttached) {
		return fmt.Errorf("cannot detach disk %q: %w", cid, err)
	}
	return nil
}

// errNotExchanged is why a CPI is not believed.
var errNotExchanged = errors.New("the CPI says that it has exchanged the disks, and it has not")

// swap exchanges the two disks, neither of which is attached. What came of it, the disks
// tell.
func (m *mover) swap(ctx context.Context) error {
	failpoint.Hit("before-swap")
	err := m.call(ctx, func(ctx context.Context, c *cpi.Client) error { return c.SwapDisks(ctx, m.disk.Disk, m.disk.New) })
	failpoint.Hit("swapped")
	if err != nil {
		return fmt.Errorf("cannot exchange disk %q for %q: %w", m.disk.Disk, m.disk.New, err)
	}
	return nil
}

// awaitCall waits for a call that an earlier daemon made. Of one that made a disk the
// answer has its CID.
func (m *mover) awaitCall(ctx context.Context) error {
	call := m.disk.Call
	if call == nil || m.agent.CPI == nil {
		return nil
	}
	left, err := m.agent.CPI.Reattach(call.Dir, ofBoot(call.Boot, call.Process))
	if err != nil {
		return fmt.Errorf("cannot wait for the CPI: %w", err)
	}
	if err := m.awaitEnd(ctx, left); err != nil || m.disk.New != "" || m.disk.Mounts != nil {
		return err
	}
	answer, err := left.Wait(ctx)
	var cid string
	if err == nil {
		cid, err = m.agent.CPI.DiskCID(answer.Result)
	}
	if err == nil {
		err = m.made(cid)
	}
	if err != nil && !errors.As(err, new(*cpi.Error)) { // which says that there is none
		m.note(fmt.Sprintf("%v: %v", errNoDisk, err))
	}
	return nil
}

// made makes durable which disk the CPI has made. One that was there before is none that
// may be deleted.
func (m *mover) made(cid string) error {
	if err := m.agent.refuseKnown(cid); err != nil {
		return err
	}
	return m.set(func(d *HeldDisk) { d.New = cid })
}

// awaitEnd waits for a call's end, which is most likely long ago.
func (m *mover) awaitEnd(ctx context.Context, call *cpi.Call) error {
	if isClosed(call.Done()) {
		return nil
	}
	limit := time.NewTimer(m.agent.Settings.Budgets.Snapshot)
	defer limit.Stop()
	select {
	case <-call.Done():
	case <-limit.C:
		call.Kill(killGrace)
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-m.agent.lifetime.Done():
		return ErrStopping
	}
	return nil
}

// takeOut unmounts the persistent disk, if it is mounted, and detaches it.
func (m *mover) takeOut(ctx context.Context) error {
	path, err := m.attach(ctx, m.disk.Disk)
	if err != nil {
		return err
	}
	disk, err := remount.At(path, m.disk.Mounts)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, m.agent.Settings.Budgets.Stop, errOverStop)
	defer cancel()
	if err := disk.Unmount(ctx); err != nil {
		return err
	}
	return m.detach(ctx, m.disk.Disk)
}

// errOverResume is why a mount was ended.
var errOverResume = errors.New("it took longer than its budget (budgets.resume)")

// putIn mounts the persistent disk where and as it was, if it is not.
func (m *mover) putIn(ctx context.Context) error {
	if m.disk.Mounts == nil {
		return nil // nothing of it was unmounted
	}
	defer m.timed(PhaseMount, time.Now())
	m.run.setPhase(PhaseMount)
	path, err := m.attach(ctx, m.disk.Disk)
	if err != nil {
		return err
	}
	disk, err := remount.At(path, m.disk.Mounts)
	if err != nil {
		return err
	}
	failpoint.Hit("before-mount")
	ctx, cancel := context.WithTimeoutCause(ctx, m.agent.Settings.Budgets.Resume, errOverResume)
	defer cancel()
	if err := disk.Mount(ctx); err != nil {
		return fmt.Errorf("cannot mount disk %q: %w", m.disk.Disk, err)
	}
	failpoint.Hit("mounted")
	return nil
}

// settle has one of the two disks in its place, by what is found and not by what is
// recorded: the restored one where they were exchanged, unless that is to be undone or
// it cannot be mounted.
func (m *mover) settle(ctx context.Context) error {
	if m.disk.Side == SideApart {
		return nil
	}
	if err := m.awaitCall(ctx); err != nil {
		return err
	}
	for swapped := false; ; {
		side, err := m.side(ctx)
		if err != nil {
			return err
		}
		if side == SideRestored && m.disk.Back {
			if swapped {
				return errNotExchanged
			}
			if err := m.swapBack(ctx); err != nil {
				return err
			}
			swapped = true
			continue
		}
		err = m.putIn(ctx)
		if err == nil {
			return m.set(func(d *HeldDisk) { d.Side = side })
		}
		if side == SideBefore || m.disk.New == "" { // there is no other
			return err
		}
		if err := m.goBack(err); err != nil {
			return err
		}
	}
}

// swapBack exchanges the disks once more. The restored one was mounted and holds other
// things than before, and once the other one is mounted that does, too: how they are
// told apart is noted anew while neither is.
func (m *mover) swapBack(ctx context.Context) error {
	if err := m.takeOut(ctx); err != nil {
		return err
	}
	between, odd := m.tellAnew(ctx)
	if err := errors.Join(m.detach(ctx, m.disk.Disk), m.detach(ctx, m.disk.New)); err != nil {
		return err
	}
	if odd == nil {
		odd = m.set(func(d *HeldDisk) { d.Between = &between })
	}
	if odd != nil { // what was noted before tells as long as the other one is not mounted
		m.note(fmt.Sprintf("cannot tell anew which disk is which: %v", odd))
	}
	return m.swap(ctx)
}

// tellAnew compares the disks while they are exchanged.
func (m *mover) tellAnew(ctx context.Context) (remount.Difference, error) {
	before, err := m.attach(ctx, m.disk.New)
	if err != nil {
		return remount.Difference{}, err
	}
	restored, err := m.attach(ctx, m.disk.Disk)
	if err != nil {
		return remount.Difference{}, err
	}
	return m.differ(ctx, before, restored)
}

// differ compares the disks. The jobs are down meanwhile, and two disks that are much
// alike are read for long.
func (m *mover) differ(ctx context.Context, before, restored string) (remount.Difference, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.agent.Settings.Budgets.Stop, errOverStop)
	defer cancel()
	return remount.Differ(ctx, before, restored)
}

// goBack has the next settle put the disk in place that was there before.
func (m *mover) goBack(why error) error {
	m.why = fmt.Errorf("the restored disk is no good, and the one before was put back: %w", why)
	m.note(m.why.Error())
	return m.set(func(d *HeldDisk) { d.Back, d.Side = true, "" })
}

// discard deletes the disk that was made, once the disk before is in its place.
func (m *mover) discard(ctx context.Context) error {
	err := m.set(func(d *HeldDisk) { d.Between, d.Back = nil, false }) // nothing is left to be told apart
	if err != nil || m.disk.New == "" {
		return err
	}
	failpoint.Hit("before-discard")
	err = m.detach(ctx, m.disk.New)
	if err == nil {
		err = m.call(ctx, func(ctx context.Context, c *cpi.Client) error { return c.DeleteDisk(ctx, m.disk.New) })
	}
	failpoint.Hit("discarded")
	if err != nil && !errors.Is(err, cpi.DiskNotFound) {
		m.note(fmt.Sprintf("disk %q, which was made from snapshot %q, is left over: %v", m.disk.New, m.disk.Snapshot, err))
		return nil
	}
	return m.set(func(d *HeldDisk) { d.New = "" })
}
