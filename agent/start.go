package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quiesced/quiesced/quiesce/failpoint"
	"github.com/quiesced/quiesced/quiesce/jobs"
)

// startJobs has run again what ran before, unless the director has taken the jobs
// over.
func (g *going) startJobs(ctx context.Context) (failed, down error) {
	if !g.held.processes() {
		return nil, nil
	}
	owner, err := g.awaitServices(ctx)
	switch {
	case err != nil:
		return nil, err
	case owner == jobs.Director:
		g.note("the director has stopped the jobs since: they are left stopped")
		g.letGo()
		return nil, nil
	case owner == jobs.Nobody:
		g.note("the director has started the jobs since")
		return nil, g.keepUp(ctx)
	case g.leftToDirector():
		return nil, nil
	case g.held.Drained || g.held.Stopped:
		return g.startServices(ctx)
	}
	failed = g.postStart(ctx) // nothing but pre-stop was begun
	g.letGo()
	return failed, nil
}

// leftToDirector says that the director has the jobs to itself. What is held stays
// so.
func (g *going) leftToDirector() bool {
	_, yielded := g.agent.yielded()
	if yielded {
		g.note("jobs are left as they are: the director has them to itself (quiesced yield)")
	}
	return yielded
}

// owner says whose the services are: the director's if it has stopped them since,
// nobody's if it has started them, or else ours.
func (g *going) owner() (jobs.Owner, error) {
	if g.agent.marker() == nil {
		return jobs.Ours, nil
	}
	mark, err := g.agent.mark()
	if err != nil || mark.Owner == jobs.Nobody && (!g.held.Stopped || g.held.Started) {
		return jobs.Ours, err
	}
	return mark.Owner, nil
}

// lookAgain is how often it is looked whether the director has put the services
// back.
const lookAgain = time.Second

// awaitServices says whose the services are. A supervisor that has none, where they
// are ours, means that the director is putting new ones in place, or that the
// supervisor is being started: that is waited for.
func (g *going) awaitServices(ctx context.Context) (jobs.Owner, error) {
	ctx, cancel := context.WithTimeout(ctx, g.budget())
	defer cancel()
	for {
		all, err := g.agent.Supervisor.Services(ctx)
		owner, ownerErr := g.owner()
		if ownerErr != nil || owner != jobs.Ours || err == nil && len(all) > 0 || g.leftAlone() {
			return owner, ownerErr
		}
		select {
		case <-ctx.Done():
			return "", errors.Join(fmt.Errorf("%s has none of the services %s", g.agent.Supervisor, strings.Join(g.held.names(), ", ")), err)
		case <-time.After(lookAgain):
		}
	}
}

// leftAlone says that the services are not needed for what is to be done.
func (g *going) leftAlone() bool {
	_, yielded := g.agent.yielded()
	return yielded || !g.held.Drained && !g.held.Stopped
}

// keepUp makes up for what of ours came after the director's start: what we drained
// or stopped in that instant is to run, as the director wants it.
func (g *going) keepUp(ctx context.Context) error {
	present, err := g.present(ctx)
	if err != nil {
		return err
	}
	ctx, stop := g.unlessTaken(ctx)
	defer stop()
	starting, err := g.stopDrained(ctx, present, false)
	if err == nil && len(starting) > 0 {
		err = g.start(ctx, starting)
	}
	switch {
	case err == nil || g.directorStopped():
	case g.leftToDirector():
		return nil
	default:
		return err
	}
	_, err = g.giveBack(context.WithoutCancel(ctx), starting)
	g.letGo()
	return err
}

// letGo forgets the services, whoever has them now.
func (g *going) letGo() {
	g.held.PreStopped, g.held.Drained, g.held.Stopped, g.held.PreStarted, g.held.Started = false, false, false, false, false
	g.held.Services = nil
	g.save(g.held)
}

func (g *going) startServices(ctx context.Context) (failed, down error) {
	watched, stop := g.unlessTaken(ctx)
	starting, failed, down := g.bringUp(watched)
	stop()
	switch {
	case down == nil || g.directorStopped():
	case g.leftToDirector():
		return failed, nil
	default:
		return failed, down
	}
	failpoint.Hit("start-unrecorded")
	g.held.Started = true
	g.save(g.held)
	failpoint.Hit("started")
	if taken, err := g.giveBack(ctx, starting); taken || err != nil {
		return failed, err
	}
	failpoint.Hit("unmarked")
	watched, stop = g.unlessTaken(ctx)
	failed = errors.Join(failed, g.postStart(watched))
	stop()
	g.letGo()
	return failed, nil
}

// directorStopped says that the director has stopped the services, whatever else was
// found before.
func (g *going) directorStopped() bool {
	mark, err := g.agent.mark()
	return err == nil && mark.Owner == jobs.Director
}

// unlessTaken is a context that ends when the director takes the services over, so
// that nobody waits for what the director does not want. The function returned ends
// the watch.
func (g *going) unlessTaken(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		tick := time.NewTicker(markEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if _, yielded := g.agent.yielded(); yielded {
				cancel(ErrYielded)
			}
			if g.directorStopped() {
				cancel(errTakenOver)
			}
		}
	})
	return ctx, func() { cancel(nil); watch.Wait() }
}

// bringUp has the services run. It returns those that did not.
func (g *going) bringUp(ctx context.Context) (starting []string, failed, down error) {
	present, err := g.present(ctx)
	if err != nil {
		return nil, nil, err
	}
	starting, err = g.stopDrained(ctx, present, true)
	if errors.Is(err, jobs.ErrMarked) {
		return starting, nil, err
	}
	failed = err // a start is tried on whatever it is
	failed = errors.Join(failed, g.preStart(ctx, len(present) > 0 && len(starting) == len(present)))
	g.run.setPhase(PhaseStart)
	failpoint.Hit("before-start")
	return starting, failed, g.start(ctx, present)
}

// preStart runs the pre-start scripts to their end once, and only where no service
// runs: they may take away what a running one has.
func (g *going) preStart(ctx context.Context, allDown bool) error {
	if !allDown || g.held.PreStarted || len(g.held.drained()) > 0 {
		return nil
	}
	g.run.setPhase(PhasePreStart)
	failpoint.Hit("before-pre-start")
	err := g.scripts(ctx, jobs.PreStart, g.budget())
	g.held.PreStarted = true
	g.save(g.held)
	return err
}

// failingPatience is how long a service is waited for that did not run well before.
const failingPatience = 5 * time.Second

// start has all services run. Those that did not run well before need not now.
func (g *going) start(ctx context.Context, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, g.budget())
	defer cancel()
	well := slices.DeleteFunc(slices.Clone(names), g.held.failing)
	ill := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !g.held.failing(name) })
	started := g.agent.Supervisor.Start(ctx, well, g.run.serviceTold)
	if started == nil && g.up != nil {
		g.up()
	}
	if len(ill) > 0 {
		ctx, cancel := context.WithTimeout(ctx, failingPatience)
		defer cancel()
		if err := g.agent.Supervisor.Start(ctx, ill, g.run.serviceTold); err != nil {
			g.note(fmt.Sprintf("services that did not run well before do not now: %v", err))
		}
	}
	return started
}

// giveBack removes our mark. A mark that is not ours is the director's, who has
// stopped the jobs while we started them: what we started is stopped again.
func (g *going) giveBack(ctx context.Context, started []string) (taken bool, err error) {
	m := g.agent.marker()
	if m == nil {
		return false, nil
	}
	mark, err := m.Release()
	if err != nil || mark.Owner != jobs.Director {
		return false, err
	}
	g.note("the director has stopped the jobs while they were started: they are stopped again")
	all, err := g.agent.Supervisor.Services(ctx)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, g.agent.Settings.Budgets.Stop)
		defer cancel()
		all = slices.DeleteFunc(all, func(s jobs.Service) bool { return !slices.Contains(started, s.Name) })
		err = g.agent.Supervisor.Stop(ctx, all, g.run.serviceTold)
	}
	g.letGo()
	return true, err
}

func (g *going) postStart(ctx context.Context) error {
	g.run.setPhase(PhasePostStart)
	failpoint.Hit("before-post-start")
	defer failpoint.Hit("post-started")
	return g.scripts(ctx, jobs.PostStart, g.budget())
}

// present are the services that ran before and that the supervisor still has.
func (g *going) present(ctx context.Context) ([]string, error) {
	now, err := g.agent.Supervisor.Services(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, name := range g.held.names() {
		if _, ok := serviceState(now, name); ok {
			names = append(names, name)
			continue
		}
		g.note(fmt.Sprintf("service %q, which ran before, is no longer deployed", name))
	}
	return names, nil
}

// stopDrained stops the services that were drained, but not stopped, and those whose
// stop is under way still. It returns all that do not run then. Where they are not
// ours, one that is being started is the director's to start.
func (g *going) stopDrained(ctx context.Context, present []string, ours bool) (starting []string, err error) {
	now, err := g.agent.settled(ctx)
	if err != nil {
		return present, err
	}
	old := g.held.drained()
	if g.tried && len(old) > 0 {
		g.note(fmt.Sprintf("%d services did not stop and run on as they were drained", len(old)))
		old = nil
	}
	var drained []HeldService
	for _, held := range g.held.Services {
		s, ok := serviceState(now, held.Name)
		was := slices.ContainsFunc(old, func(o HeldService) bool { return o.Name == held.Name })
		switch {
		case !ok || !slices.Contains(present, held.Name):
		case was || ours && !g.tried && s.State == jobs.Changing:
			drained = append(drained, held)
			starting = append(starting, held.Name)
		case s.State != jobs.Running && s.State != jobs.Changing:
			starting = append(starting, held.Name)
		}
	}
	if len(drained) == 0 {
		return starting, nil
	}
	if err := g.claim(); err != nil {
		return starting, err
	}
	failpoint.Hit("before-stop-drained")
	ctx, cancel := context.WithTimeout(ctx, g.agent.Settings.Budgets.Stop)
	defer cancel()
	return starting, g.agent.Supervisor.Stop(ctx, asServices(drained), g.run.serviceTold)
}

// claim marks the services as stopped by us, as the run itself would have done
// before it stopped them, if they are not.
func (g *going) claim() error {
	m := g.agent.marker()
	if m == nil {
		return nil
	}
	mark, err := m.Read()
	if err != nil || mark.Owner == jobs.Ours {
		return err
	}
	if err := m.Claim(g.held.Run, g.held.names()); err != nil {
		return err
	}
	g.held.Stopped, g.held.Started = true, false
	g.save(g.held)
	return nil
}
