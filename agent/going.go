package agent

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/quiesced/quiesced/quiesce/failpoint"
	"github.com/quiesced/quiesced/quiesce/jobs"
)

// going sets jobs going again: it undoes what is held, in reverse. It is one code
// path for a run that ends, one that a dead daemon left, and what could not be
// undone before. Each part is done whatever became of the others.
type going struct {
	agent *Agent
	held  Held
	run   *Run       // to show progress
	save  func(Held) // makes durable what is left
	note  func(string)
	limit time.Duration          // of each step; 0 for budgets.resume
	tried bool                   // the services were told to stop and had all the time for it
	up    func()                 // called when the services run again; may be nil
	free  func()                 // called when the locks are released; may be nil
	timed func(Phase, time.Time) // of phases; may be nil
}

// undo returns what failed although everything goes again, and what does not go
// again. What is left to the director is neither, but stays held.
func (g *going) undo(ctx context.Context) (failed, notResumed error) {
	unhooked := g.unhook(ctx)
	unlocked := g.unlock(ctx)
	if g.free != nil {
		g.free()
	}
	start := g.startJobs
	if g.held.Disk != nil {
		start = g.startOnDisk
	}
	failed, down := start(ctx)
	return failed, errors.Join(unhooked, unlocked, down)
}

// budget bounds each step of starting services.
func (g *going) budget() time.Duration {
	return cmp.Or(g.limit, g.agent.Settings.Budgets.Resume)
}

func (g *going) scripts(ctx context.Context, name string, budget time.Duration) error {
	found, err := g.agent.Settings.Processes.Layout.Scripts(name)
	if err != nil || len(found) == 0 {
		return err
	}
	return g.agent.Scripts.Run(ctx, found, budget, g.run.scriptTold)
}

// unhook runs the post-snapshot scripts of the jobs whose pre-snapshot was begun.
func (g *going) unhook(ctx context.Context) error {
	if len(g.held.Hooked) == 0 {
		return nil
	}
	g.run.setPhase(PhasePostSnapshot)
	failpoint.Hit("before-unhook")
	left, err := g.release(ctx, jobs.PostSnapshot, g.held.Hooked)
	failpoint.Hit("unhook-unrecorded")
	g.held.Hooked = left
	g.save(g.held)
	failpoint.Hit("unhooked")
	return err
}

// unlock runs the unlock scripts of the jobs whose lock was begun, the last layer
// first.
func (g *going) unlock(ctx context.Context) error {
	layers := slices.Clone(g.held.Locked)
	errs := make([]error, len(layers))
	for i := range slices.Backward(layers) {
		g.run.setPhase(PhaseUnlock)
		failpoint.Hit("before-unlock")
		layers[i], errs[i] = g.release(ctx, jobs.Unlock, layers[i])
		failpoint.Hit("unlock-unrecorded")
		g.held.Locked = slices.DeleteFunc(slices.Clone(layers), func(layer []string) bool { return len(layer) == 0 })
		g.save(g.held)
		failpoint.Hit("unlocked")
	}
	return errors.Join(errs...)
}

// release runs the scripts of a name of some jobs, and returns those jobs whose
// script failed.
func (g *going) release(ctx context.Context, name string, of []string) ([]string, error) {
	found, err := g.agent.Settings.Processes.Layout.Scripts(name)
	if err != nil {
		return of, err
	}
	found = slices.DeleteFunc(found, func(s jobs.Script) bool { return !slices.Contains(of, s.Job) })
	err = g.agent.Scripts.Run(ctx, found, g.agent.Settings.Budgets.Lock, g.run.scriptTold)
	return failedJobs(err), err
}

// failedJobs are the jobs of the scripts that an error of Run tells of.
func failedJobs(err error) []string {
	var names []string
	for _, one := range joinedErrors(err) {
		var s *jobs.ScriptError
		if errors.As(one, &s) {
			names = append(names, s.Script.Job)
		}
	}
	return names
}

func joinedErrors(err error) []error {
	if many, ok := err.(interface{ Unwrap() []error }); ok { // what Run joined, not what is below
		return many.Unwrap()
	}
	return []error{err}
}
