package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quiesced/quiesced/quiesce/failpoint"
	"github.com/quiesced/quiesced/quiesce/jobs"
)

// errTakenOver is the cause of a run under which somebody else started or stopped
// the services.
var errTakenOver = errors.New("the director started or stopped the jobs meanwhile")

// errTooEarly is why jobs that were at rest do not count as such.
var errTooEarly = errors.New("jobs were set going before the point in time was known to be fixed")

// restJobs brings the jobs to rest as far as the plan's level asks. What is intended
// is durable before each step.
func (p *performer) restJobs(ctx context.Context) error {
	plan := &p.record.Plan
	if !plan.touchesJobs() {
		return nil
	}
	if p.inherited {
		return p.stillAtRest(ctx)
	}
	// What is dirty now would be written out while the jobs are down.
	p.writeAhead(ctx, p.agent.Settings.Budgets.PreSync/2)
	if p.held == nil {
		p.held = &Held{Run: p.run.ID(), Trigger: p.run.request.Trigger, Level: plan.Level}
	}
	steps := []func(context.Context) error{p.hook}
	switch {
	case plan.JobsAtRest: // somebody else stopped them
		steps = nil
	case plan.Level == LevelStop:
		steps = []func(context.Context) error{p.preStop, p.drain, p.stopServices, p.postStop, p.hook}
	case plan.Level == LevelLock:
		steps = []func(context.Context) error{p.lock, p.hook}
	}
	for _, do := range steps {
		err := do(ctx)
		if ctx.Err() != nil { // then that is why the step failed, if it did
			return fmt.Errorf("%w (%s)", context.Cause(ctx), p.run.Phase())
		}
		if err != nil {
			return err
		}
	}
	return p.writersLeft()
}

// intend makes what is about to be done to the jobs durable. What cannot be recorded
// is not done, and so not undone either.
func (p *performer) intend(change func(*Held)) error {
	before := *p.held
	next := before
	change(&next)
	err := p.hold(next)
	if err == nil {
		return nil
	}
	p.setHeld(before)
	err = errors.Join(err, p.agent.storeHeld(before))
	return fmt.Errorf("cannot record what is about to be done to the jobs: %w", err)
}

// hold records what is held of the jobs, wherever it is kept.
func (p *performer) hold(h Held) error {
	p.setHeld(h)
	return errors.Join(p.agent.storeHeld(h), p.save())
}

func (p *performer) setHeld(h Held) {
	p.held = &h
	p.record.setHeld(h)
}

// runScripts runs the scripts of a name, each within a budget.
func (p *performer) runScripts(ctx context.Context, scripts []jobs.Script, budget time.Duration) error {
	return p.agent.Scripts.Run(ctx, scripts, budget, p.run.scriptTold)
}

func (p *performer) preStop(ctx context.Context) error {
	scripts := p.inventory.Scripts[jobs.PreStop]
	if len(scripts) == 0 {
		return nil
	}
	p.enter(PhasePreStop)
	defer p.timed(PhasePreStop, time.Now())
	if err := p.intend(func(h *Held) { h.PreStopped = true }); err != nil {
		return err
	}
	failpoint.Hit("before-pre-stop")
	defer failpoint.Hit("pre-stopped")
	return p.runScripts(ctx, scripts, p.agent.Settings.Budgets.PreStop)
}

// drain has the supervisor start nothing again that ends, and the jobs finish their
// work.
func (p *performer) drain(ctx context.Context) error {
	p.enter(PhaseDrain)
	defer p.timed(PhaseDrain, time.Now())
	services, err := p.countServices(ctx)
	if err != nil {
		return err
	}
	if err := p.intend(func(h *Held) { h.Drained, h.Services = true, services }); err != nil {
		return err
	}
	failpoint.Hit("before-drain")
	defer failpoint.Hit("drained")
	if err := p.unmonitor(ctx); err != nil {
		return err
	}
	failpoint.Hit("unmonitored")
	return p.agent.Scripts.Drain(ctx, p.inventory.Scripts[jobs.Drain], p.agent.Settings.Budgets.Drain, p.run.scriptTold)
}

func (p *performer) unmonitor(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.agent.Settings.Budgets.Stop)
	defer cancel()
	return p.agent.Supervisor.Unmonitor(ctx, p.held.names())
}

// countServices takes note of which services run, and as which processes.
func (p *performer) countServices(ctx context.Context) ([]HeldService, error) {
	i, err := p.agent.inventory(ctx, LevelStop)
	if err == nil {
		err = i.CannotStop
	}
	if err == nil && i.AtRest {
		err = errTakenOver
	}
	if err != nil {
		return nil, err
	}
	var all []HeldService
	for _, s := range i.running() {
		all = append(all, HeldService{Name: s.Name, Processes: s.Processes, Failing: s.State == jobs.Failing})
	}
	return all, nil
}

// stopServices marks the services as stopped by us, and stops them. The mark comes
// first: a daemon that finds it goes on from it, whatever else is lost.
func (p *performer) stopServices(ctx context.Context) error {
	p.enter(PhaseStop)
	defer p.timed(PhaseStop, time.Now())
	failpoint.Hit("before-mark")
	if m := p.agent.marker(); m != nil {
		if err := m.Claim(p.run.ID(), p.held.names()); err != nil {
			return err
		}
	}
	failpoint.Hit("marked")
	p.watchMark()
	if err := p.intend(func(h *Held) { h.Stopped = true }); err != nil {
		return err
	}
	failpoint.Hit("before-stop")
	defer failpoint.Hit("stopped")
	p.downSince = time.Now()
	ctx, cancel := context.WithTimeout(ctx, p.agent.Settings.Budgets.Stop)
	defer cancel()
	err := p.agent.Supervisor.Stop(ctx, asServices(p.held.Services), p.run.serviceTold)
	p.tried = errors.Is(err, jobs.ErrNotStopped) && p.run.ctx.Err() == nil
	return err
}

// asServices are services as a supervisor takes them.
func asServices(held []HeldService) []jobs.Service {
	var all []jobs.Service
	for _, s := range held {
		all = append(all, jobs.Service{Name: s.Name, State: jobs.Running, Monitored: true, Processes: s.Processes})
	}
	return all
}

func (p *performer) postStop(ctx context.Context) error {
	scripts := p.inventory.Scripts[jobs.PostStop]
	if len(scripts) > 0 {
		p.enter(PhasePostStop)
		defer p.timed(PhasePostStop, time.Now())
		failpoint.Hit("before-post-stop")
		if err := p.runScripts(ctx, scripts, p.agent.Settings.Budgets.PreStop); err != nil {
			return err
		}
		failpoint.Hit("post-stopped")
	}
	if why := p.agent.moved(ctx, false, p.held); why != "" {
		return errors.New(why)
	}
	return nil
}

// moved says what became of services that we stopped, or the director did before,
// "" if they are still so.
func (a *Agent) moved(ctx context.Context, atRest bool, h *Held) string {
	mark, err := a.mark()
	if err != nil {
		return err.Error()
	}
	ours := mark.Owner == jobs.Ours && mark.Run == h.Run
	if a.marker() != nil && (atRest && mark.Owner != jobs.Director || !atRest && !ours) {
		return errTakenOver.Error()
	}
	now, err := a.Supervisor.Services(ctx)
	if err != nil {
		return fmt.Sprintf("cannot tell whether the services are still stopped: %v", err)
	}
	var up []string
	for _, s := range now {
		concerns := atRest || slices.Contains(h.names(), s.Name)
		if concerns && s.State != jobs.Stopped {
			up = append(up, s.Name)
		}
	}
	if len(up) > 0 {
		return "no longer stopped: " + strings.Join(up, ", ")
	}
	return ""
}

// markEvery is how often it is looked whether the director took the jobs over.
const markEvery = 100 * time.Millisecond

// watchMark ends the run when the mark is no longer ours, until the run has set
// everything going again. It reads a file off the frozen disks.
func (p *performer) watchMark() {
	if p.agent.marker() == nil {
		return
	}
	owner := p.held.Run
	p.agent.jobs.Go(func() {
		tick := time.NewTicker(markEvery)
		defer tick.Stop()
		for {
			select {
			case <-p.run.ctx.Done():
				return
			case <-p.going:
				return
			case <-tick.C:
			}
			if p.agent.takenFrom(owner) {
				p.run.cancel(errTakenOver)
				return
			}
		}
	})
}

// takenFrom says that the director has stopped or started the services that a run
// stopped.
func (a *Agent) takenFrom(run string) bool {
	m := a.marker()
	if m == nil {
		return false
	}
	mark, err := m.Read()
	return err == nil && (mark.Owner != jobs.Ours || mark.Run != run)
}

// stillAtRest checks what an earlier hold has brought to rest.
func (p *performer) stillAtRest(ctx context.Context) error {
	if p.held.Stopped {
		p.watchMark()
	}
	if p.agent.directorHasJobs() != "" {
		return errTakenOver
	}
	if p.record.Plan.Level != LevelStop {
		return nil
	}
	if why := p.agent.moved(ctx, false, p.held); why != "" {
		return errors.New(why)
	}
	return nil
}

// lock runs the lock scripts, one layer after the other.
func (p *performer) lock(ctx context.Context) error {
	p.enter(PhaseLock)
	defer p.timed(PhaseLock, time.Now())
	p.lockedSince = time.Now()
	for _, layer := range p.inventory.Locks {
		if err := p.intend(func(h *Held) { h.Locked = append(slices.Clone(h.Locked), jobsOf(layer)) }); err != nil {
			return err
		}
		failpoint.Hit("before-lock")
		if err := p.runScripts(ctx, layer, p.agent.Settings.Budgets.Lock); err != nil {
			return err
		}
		failpoint.Hit("locked")
	}
	return nil
}

func jobsOf(scripts []jobs.Script) []string {
	var names []string
	for _, s := range scripts {
		names = append(names, s.Job)
	}
	return names
}

// hook runs the pre-snapshot scripts.
func (p *performer) hook(ctx context.Context) error {
	scripts := p.inventory.Scripts[jobs.PreSnapshot]
	if len(scripts) == 0 {
		return nil
	}
	p.enter(PhasePreSnapshot)
	defer p.timed(PhasePreSnapshot, time.Now())
	if err := p.intend(func(h *Held) { h.Hooked = jobsOf(scripts) }); err != nil {
		return err
	}
	failpoint.Hit("before-hook")
	defer failpoint.Hit("hooked")
	return p.runScripts(ctx, scripts, p.agent.Settings.Budgets.Lock)
}

// writersLeft tells, once the services are stopped, of processes that may still
// write to the disks.
func (p *performer) writersLeft() error {
	if p.record.Plan.Level != LevelStop {
		return nil
	}
	left, err := p.agent.System.Writers(p.record.Plan.Filesystems)
	var all []string
	for _, w := range left {
		all = append(all, fmt.Sprintf("%s (pid %d) has %s open", w.Command, w.PID, w.Path))
	}
	if err != nil { // of those that cannot be looked at nobody can say that they write
		p.note(fmt.Sprintf("not every process could be looked at for files that it writes: %v", err))
	}
	if len(all) == 0 {
		return nil
	}
	what := "processes that no supervisor knows may write to the disks: " + strings.Join(all, "; ")
	if p.agent.Settings.Processes.FailOnWriters {
		return errors.New(what)
	}
	p.note(what)
	return nil
}
