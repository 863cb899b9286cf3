package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce/failpoint"
	"github.com/quiesced/quiesced/quiesce/fscheck"
	"github.com/quiesced/quiesced/quiesce/remount"
)

// restore carries out a restore, sets everything going again, and reports. Only the way
// up to the exchange of the disks is here: all that comes after it, and the undoing of
// what comes before, is how what a run holds is set going.
func (p *performer) restore() Report {
	p.phases = map[Phase]time.Duration{}
	err := p.replaceDisk(p.run.ctx)
	close(p.going)
	resumed := p.setGoing(true)
	p.run.setResumed(resumed)
	return p.finishRestore(err, resumed)
}

// replaceDisk does first what can be done while the application goes on: it is stopped
// for a disk that is known to be good.
func (p *performer) replaceDisk(ctx context.Context) error {
	p.mover = &mover{agent: p.agent, run: p.run, disk: *p.held.Disk, note: p.note, timed: p.timed}
	p.mover.put = func(d HeldDisk) error { return p.intend(func(h *Held) { h.Disk = &d }) }
	type step struct {
		phase Phase
		do    func(context.Context) error
	}
	steps := []step{
		{PhaseMakeDisk, p.makeDisk},
		{PhaseCheckDisk, p.checkDisk},
		{PhasePrepare, p.restJobs},
		{PhaseUnmount, p.unmountDisk},
		{PhaseSwap, p.exchangeDisks},
	}
	if p.restoring.Director {
		steps = append(steps[:2], step{PhaseCheckDisk, p.leaveApart})
	}
	for _, step := range steps {
		p.enter(step.phase)
		began := time.Now()
		err := step.do(ctx)
		p.timed(step.phase, began)
		if err != nil {
			return firstCause(ctx, err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// makeDisk has the CPI make a disk from the snapshot.
func (p *performer) makeDisk(ctx context.Context) error {
	m := p.mover
	c, err := m.cpi(p.agent.runDir(p.run.ID()))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, p.agent.Settings.Budgets.Snapshot)
	defer cancel()
	failpoint.Hit("before-make")
	cid, err := c.CreateDisk(ctx, p.restoring.SizeMiB, map[string]any{cpi.PropertySnapshot: m.disk.Snapshot}, p.agent.Settings.VM)
	failpoint.Hit("made")
	if err == nil {
		err = m.made(cid)
	}
	if err != nil {
		return fmt.Errorf("cannot make a disk from snapshot %q: %w", m.disk.Snapshot, err)
	}
	return nil
}

// leaveApart leaves the new disk to the director.
func (p *performer) leaveApart(ctx context.Context) error {
	if err := p.mover.detach(ctx, p.mover.disk.New); err != nil {
		return err
	}
	return p.mover.set(func(d *HeldDisk) { d.Side = SideApart })
}

// checkDisk checks the new disk's filesystem, and that it can be mounted as the
// persistent disk is. A CPI attaches nothing to a VM that it does not know.
func (p *performer) checkDisk(ctx context.Context) error {
	if p.restoring.Director && p.agent.Settings.VM == "" {
		p.note("the new disk was not checked (instance.vm_cid is not configured)")
		return nil
	}
	path, err := p.attachNew(ctx)
	if err != nil {
		return err
	}
	result, err := fscheck.Check(ctx, path)
	switch {
	case err != nil:
		return fmt.Errorf("cannot check the disk made from snapshot %q: %w", p.mover.disk.Snapshot, err)
	case !result.OK && !p.run.request.Force:
		return fmt.Errorf("snapshot %q is damaged (%s): %s", p.mover.disk.Snapshot, result.Tool, result.Output)
	case !result.OK:
		p.note(fmt.Sprintf("what was restored is damaged (%s): %s", result.Tool, result.Output))
	}
	if p.restoring.Director {
		return nil
	}
	now, err := remount.Of(p.restoring.Point)
	if err != nil {
		return err
	}
	if err := remount.Try(ctx, path, now.Mounts); err != nil {
		return err
	}
	failpoint.Hit("disk-checked")
	return nil
}

// attachNew attaches the new disk for the first time. What the CPI names is checked, and
// may be written to: it must not be another's.
func (p *performer) attachNew(ctx context.Context) (path string, err error) {
	before, err := p.agent.System.Devices()
	if err != nil {
		return "", err
	}
	if path, err = p.mover.attach(ctx, p.mover.disk.New); err != nil {
		return "", err
	}
	return path, p.agent.awaitNew(ctx, path, before)
}

// errOverStop is why a step was ended that took too long while the jobs are down.
var errOverStop = errors.New("it took longer than its budget (budgets.stop)")

// unmountDisk takes the persistent disk out of its place. The error says who uses it.
func (p *performer) unmountDisk(ctx context.Context) error {
	now, err := remount.Of(p.restoring.Point) // anew: a job's script may have mounted and unmounted
	if err != nil {
		return err
	}
	if err := p.mover.set(func(d *HeldDisk) { d.Mounts = now.Mounts }); err != nil {
		return err
	}
	failpoint.Hit("before-unmount")
	ctx, cancel := context.WithTimeoutCause(ctx, p.agent.Settings.Budgets.Stop, errOverStop)
	defer cancel()
	err = now.Unmount(ctx)
	failpoint.Hit("unmounted")
	return err
}

// exchangeDisks takes note of how the two disks are told apart, and exchanges them.
func (p *performer) exchangeDisks(ctx context.Context) error {
	m := p.mover
	between, err := p.tellApart(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(m.detach(ctx, m.disk.Disk), m.detach(ctx, m.disk.New)); err != nil {
		return err
	}
	failpoint.Hit("told-apart")
	if err := m.set(func(d *HeldDisk) { d.Between = &between }); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return m.swap(ctx)
}

// tellApart compares the disks, neither of which is mounted. The persistent one is
// detached and attached anew for it: what is read of it then is what lies there.
func (p *performer) tellApart(ctx context.Context) (remount.Difference, error) {
	m := p.mover
	if err := m.detach(ctx, m.disk.Disk); err != nil {
		return remount.Difference{}, err
	}
	before, err := m.attach(ctx, m.disk.Disk)
	if err != nil {
		return remount.Difference{}, err
	}
	restored, err := m.attach(ctx, m.disk.New)
	if err != nil {
		return remount.Difference{}, err
	}
	between, err := m.differ(ctx, before, restored)
	if errors.Is(err, remount.ErrSame) {
		err = fmt.Errorf("there is nothing to restore: the disk holds what snapshot %q does", m.disk.Snapshot)
	}
	return between, err
}
