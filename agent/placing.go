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
	if err := g.place(ctx, m); err != nil {
		return m.why, err
	}
	failed, down = g.startJobs(ctx)
	if m.disk.Side == SideRestored && m.disk.New != "" && errors.As(down, new(*jobs.ServiceError)) {
		err := m.goBack(down)
		failpoint.Hit("going-back")
		if err == nil {
			err = g.place(ctx, m)
		}
		if err != nil {
			return errors.Join(failed, m.why), err
		}
		failed, down = g.startJobs(ctx)
	}
	failed = errors.Join(m.why, failed)
	g.letDiskGo(ctx, m)
	return failed, down
}

// place puts the disk in its place. Before the restored one is taken out again, what did
// start on it is stopped.
func (g *going) place(ctx context.Context, m *mover) error {
	var err error
	if m.disk.Back {
		g.held.PreStarted = false // it is to be done for the disk before, too
		err = g.stopStarted(ctx)
	}
	if err == nil {
		err = m.settle(ctx)
	}
	if err != nil {
		return fmt.Errorf("jobs are held as long as the disk is not in its place: %w", err)
	}
	return nil
}

// stopStarted stops what of ours runs. What the director has started is his to stop.
func (g *going) stopStarted(ctx context.Context) error {
	owner, err := g.owner()
	if err != nil || owner != jobs.Ours || !g.held.processes() {
		return err
	}
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
