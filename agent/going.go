package agent

import (
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
	tried bool   // the services were told to stop and had all the time for it
	up    func() // called when the services run again; may be nil
	free  func() // called when the locks are released; may be nil
}

// undo returns what failed although everything goes again, and what does not go
// again. What is left to the director is neither, but stays held.
func (g *going) undo(ctx context.Context) (failed, notResumed error) {
	unhooked := g.unhook(ctx)
	unlocked := g.unlock(ctx)
	if g.free != nil {
		g.free()
	}
	failed, down := g.startJobs(ctx)
	return failed, errors.Join(unhooked, unlocked, down)
}

func (g *going) budget() time.Duration { return g.agent.Settings.Budgets.Resume }

func (g *going) scripts(ctx context.Context, name string, budget time.Duration) error {
	found, err := g.agent.Settings.Processes.Layout.Scripts(name)
	if err != nil || len(found) == 0 {
		return err
	}
	return g.agent.Scripts.Run(ctx, found, budget, g.run.scriptTold)
}

// unhook runs the post-snapshot scripts.
func (g *going) unhook(ctx context.Context) error {
	if !g.held.Hooked {
		return nil
	}
	g.run.setPhase(PhasePostSnapshot)
	failpoint.Hit("before-unhook")
	if err := g.scripts(ctx, jobs.PostSnapshot, g.agent.Settings.Budgets.Lock); err != nil {
		return err
	}
	failpoint.Hit("unhook-unrecorded")
	g.held.Hooked = false
	g.save(g.held)
	failpoint.Hit("unhooked")
	return nil
}

// unlock runs the unlock scripts of the jobs whose lock was begun, the last layer
// first.
func (g *going) unlock(ctx context.Context) error {
	layers := slices.Clone(g.held.Locked)
	errs := make([]error, len(layers))
	for i := range slices.Backward(layers) {
		g.run.setPhase(PhaseUnlock)
		failpoint.Hit("before-unlock")
		layers[i], errs[i] = g.unlockLayer(ctx, layers[i])
		failpoint.Hit("unlock-unrecorded")
		g.held.Locked = slices.DeleteFunc(slices.Clone(layers), func(layer []string) bool { return len(layer) == 0 })
		g.save(g.held)
		failpoint.Hit("unlocked")
	}
	return errors.Join(errs...)
}

// unlockLayer returns the jobs that are still locked.
func (g *going) unlockLayer(ctx context.Context, layer []string) ([]string, error) {
	found, err := g.agent.Settings.Processes.Layout.Scripts(jobs.Unlock)
	if err != nil {
		return layer, err
	}
	found = slices.DeleteFunc(found, func(s jobs.Script) bool { return !slices.Contains(layer, s.Job) })
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
	if many, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // what Run joined, not what is below
		return many.Unwrap()
	}
	return []error{err}
}
