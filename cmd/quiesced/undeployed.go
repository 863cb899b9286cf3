package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"

	"github.com/quiesced/quiesced/agent"
)

// errUndeployed ends a daemon whose job is no longer on this VM.
var errUndeployed = errors.New("the job was removed from this VM")

// deployment is the job that the daemon is deployed by. When an operator takes the job
// off the VM, bosh-agent removes the job's link and runs no script of it afterwards, so
// nobody else would end the daemon.
type deployment struct {
	link  string        // /var/vcap/jobs/quiesced
	after time.Duration // for how long the link is gone before that counts
	every time.Duration // how often it is looked at
	idle  func() bool   // whether the daemon has nothing left to do
	log   *slog.Logger
}

// watch waits until the job is gone and the daemon has nothing left to do, or until
// ctx ends, and says whether it was the former. An agent that is given another version
// of a job takes the link away for an instant, and one that fails on the way tries
// again; so the link has to be gone for a while.
func (d *deployment) watch(ctx context.Context) bool {
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	var gone time.Time
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		_, err := os.Lstat(d.link)
		switch {
		case !errors.Is(err, fs.ErrNotExist):
			gone = time.Time{}
		case gone.IsZero():
			gone = time.Now()
			d.log.Warn("the job's link is gone", "link", d.link, "ends_after", d.after)
		case time.Since(gone) >= d.after && d.idle():
			return true
		}
	}
}

// watchedEvery is how often the job's link is looked at, and at most so often as to
// notice that it is gone for as long as it takes.
const watchedEvery = 5 * time.Second

// deployment is nil where the daemon is deployed by no job.
func (c *Config) deployment(a *agent.Agent, log *slog.Logger) *deployment {
	if c.BOSH.JobDir == "" {
		return nil
	}
	return &deployment{
		link: c.BOSH.JobDir, after: c.BOSH.RemovedAfter, log: log,
		every: min(watchedEvery, c.BOSH.RemovedAfter/2+1),
		idle:  func() bool { return idleFor(a) },
	}
}

// idleFor says that no work is under way, that nothing is left frozen or down that the
// daemon tries to set going, and no disk of a verification.
func idleFor(a *agent.Agent) bool {
	work, _, _ := a.Now()
	return work == "" && len(a.Stuck()) == 0 && len(a.NotGoing()) == 0 && a.Verification() == nil
}

// Where the job's pre-start has put the unit.
const (
	jobUnit     = "quiesced.service"
	jobUnitFile = "/etc/systemd/system/" + jobUnit
)

// removeTime bounds the removal of the unit. systemd waits for a stopping daemon for
// not much longer.
const removeTime = 4 * time.Second

// removeUnit takes the daemon's unit off the VM, of which systemd then knows nothing
// any more once the daemon has ended. Where no systemd runs there is none.
func removeUnit(ctx context.Context) error {
	if _, err := os.Lstat(jobUnitFile); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
	defer cancel()
	conn, err := dbus.NewSystemdConnectionContext(ctx)
	if err == nil {
		defer conn.Close()
		_, err = conn.DisableUnitFilesContext(ctx, []string{jobUnit}, false)
	}
	err = errors.Join(err, os.Remove(jobUnitFile))
	if conn != nil {
		err = errors.Join(err, conn.ReloadContext(ctx))
	}
	if err != nil {
		return fmt.Errorf("cannot remove the unit %q: %w", jobUnitFile, err)
	}
	return nil
}

// runDeployed is runTasks until the job is removed, at the latest.
func (c *Config) runDeployed(ctx context.Context, tasks []task, watch *serviceManager, a *agent.Agent, log *slog.Logger) error {
	d := c.deployment(a, log)
	if d == nil {
		return runTasks(ctx, tasks, watch, a, log)
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	tasks = append(tasks, task{"deployment", func(ctx context.Context) error {
		if d.watch(ctx) {
			log.Warn("ending for good: the job was removed from this VM")
			end(errUndeployed)
		}
		return nil
	}})
	err := runTasks(ctx, tasks, watch, a, log)
	if err == nil && errors.Is(context.Cause(ctx), errUndeployed) {
		return removeUnit(ctx)
	}
	return err
}
