package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quiesced/quiesced/quiesce/failpoint"
	"github.com/quiesced/quiesced/quiesce/jobs"
)

// mover is what puts the disk in its place that a restore holds.
func (g *going) mover() *mover {
	m := &mover{agent: g.agent, run: g.run, disk: *g.held.Disk, note: g.note, timed: g.timed}
	m.put = func(d HeldDisk) error {
		g.held.Disk = &d
		g.save(g.held)
		return nil
	}
	if m.timed == nil {
		m.timed = func(Phase, time.Time) {}
	}
	return m
}

// startOnDisk puts the disk in its place and starts the jobs on it. Where they do not
// run on the restored one they do on the one before. Nothing is started while neither is
// there.
func (g *going) startOnDisk(ctx context.Context) (failed, down error) {
	m := g.mover()
	if err := m.settle(ctx); err != nil {
		return m.why, fmt.Errorf("jobs are held as long as the disk is not in its place: %w", err)
	}
	failed, down = g.startJobs(ctx)
	if m.disk.Side == SideRestored && errors.As(down, new(*jobs.ServiceError)) {
		if err := g.startOnOther(ctx, m, down); err != nil {
			return failed, err
		}
		failed, down = g.startJobs(ctx)
	}
	failed = errors.Join(m.why, failed)
	g.letDiskGo(ctx, m)
	return failed, down
}

// startOnOther puts the disk back that was there before, as the jobs did not start on the
// restored one. What did start is stopped for it.
func (g *going) startOnOther(ctx context.Context, m *mover, why error) error {
	if err := m.goBack(why); err != nil {
		return err
	}
	failpoint.Hit("going-back")
	err := g.stopStarted(ctx)
	if err == nil {
		err = m.settle(ctx)
	}
	if err != nil {
		return fmt.Errorf("the disk before could not be put back: %w", err)
	}
	g.held.PreStarted = false // it is to be done for that disk
	return nil
}

func (g *going) stopStarted(ctx context.Context) error {
	all, err := g.agent.settled(ctx)
	if err != nil {
		return err
	}
	started := slices.DeleteFunc(all, func(s jobs.Service) bool {
		return !slices.Contains(g.held.names(), s.Name) || s.State == jobs.Stopped
	})
	ctx, cancel := context.WithTimeout(ctx, g.agent.Settings.Budgets.Stop)
	defer cancel()
	return g.agent.Supervisor.Stop(ctx, started, g.run.serviceTold)
}

// letDiskGo ends what is held of the disk, once it is in its place for good. The disk
// that was made is of no use where the one before is there, and is kept where it has the
// data of before.
func (g *going) letDiskGo(ctx context.Context, m *mover) {
	if m.disk.Side == SideBefore {
		if err := m.discard(ctx); err != nil {
			g.note(err.Error())
		}
	}
	failpoint.Hit("disk-settled")
	g.held.Disk = nil
	g.save(g.held)
}
