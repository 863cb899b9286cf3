package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Runner runs scripts as bosh-agent does, within a budget each.
//
// A script is started at / with no arguments and a lower priority than ours, in a
// session and, where the kernel has them (cgroup2), a control group of its own. Its
// environment is PATH, what BOSH gives to a script of that name, and
// QUIESCED_SCRIPT, by which [Runner.EndLeft] knows it. When its budget or its
// context ends, and when it fails, everything that it has started is killed, so that
// nothing of it happens later. What a script that ended well leaves running is left
// alone: it may be a service.
//
// What scripts print is appended to the files that bosh-agent uses,
// sys/log/JOB/NAME.stdout.log and NAME.stderr.log, which they are given themselves.
// Without such a file only the tail of it is kept, for the error, and what a
// script leaves running must not print: the scripts of Layout.Hooks, drain and
// metadata scripts have none, and a warning tells where one cannot be opened or
// the disk is full.
type Runner struct {
	Layout Layout
	Log    *slog.Logger
}

// ScriptError says how a script failed.
type ScriptError struct {
	Script Script
	Err    error  // its exit status, or what kept it from running or ended it
	Stderr string // the tail of what it printed there
}

func (e *ScriptError) Error() string {
	text := fmt.Sprintf("%s failed: %v", e.Script, e.Err)
	if e.Stderr != "" {
		text += ": " + e.Stderr
	}
	return text
}

func (e *ScriptError) Unwrap() error { return e.Err }

// Refused says that the script ended by itself, with an exit status other than zero, and
// not the one that tells that an enclosure could not be made.
func (e *ScriptError) Refused() bool {
	exit, ok := errors.AsType[exitError](e.Err)
	return ok && exit.status.Exited() && exit.status.ExitStatus() != notEnclosed
}

// notEnclosed is the exit status of an Enclosure's command that did not run the script.
const notEnclosed = 125

// Run runs scripts all at once and waits for all. told, which may be nil, hears of
// each when it begins and when it has ended, from one goroutine at a time. The
// error joins *ScriptErrors.
func (r *Runner) Run(ctx context.Context, scripts []Script, budget time.Duration, told func(s Script, done bool)) error {
	return each(scripts, told, func(s Script) error {
		return r.runLogged(ctx, call{script: s, env: variables[s.Name]}, budget)
	})
}

// Enclosure is where scripts run that must leave nothing behind.
type Enclosure struct {
	Command []string // runs the script, whose path follows it, or ends with exit status 125
	Env     []string // beside what every script has
}

// RunEnclosed is Run within an enclosure. What a script leaves running is ended with it,
// when it ended well, too.
func (r *Runner) RunEnclosed(ctx context.Context, scripts []Script, in Enclosure, budget time.Duration, told func(s Script, done bool)) error {
	return each(scripts, told, func(s Script) error {
		return r.runLogged(ctx, call{script: s, within: in.Command, env: in.Env, alone: true}, budget)
	})
}

// runLogged runs a script whose output goes to its logs.
func (r *Runner) runLogged(ctx context.Context, c call, budget time.Duration) error {
	c.stdout, c.stderr = r.output(c.script, "stdout"), r.output(c.script, "stderr")
	defer c.stdout.close()
	defer c.stderr.close()
	ctx, cancel := within(ctx, budget)
	defer cancel()
	return failed(c.script, r.run(ctx, c), c.stderr)
}

// variables are what scripts of a name find in their environment, beside PATH.
var variables = map[string][]string{
	PreStop: {"BOSH_VM_NEXT_STATE=keep", "BOSH_INSTANCE_NEXT_STATE=keep", "BOSH_DEPLOYMENT_NEXT_STATE=keep"},
}

// each does something with scripts, all at once.
func each(scripts []Script, told func(s Script, done bool), do func(s Script) error) error {
	var (
		all  sync.WaitGroup
		mu   sync.Mutex // one goroutine at a time calls told
		errs = make([]error, len(scripts))
	)
	tell := func(s Script, done bool) {
		mu.Lock()
		defer mu.Unlock()
		if told != nil {
			told(s, done)
		}
	}
	for i, s := range scripts {
		all.Go(func() {
			tell(s, false)
			errs[i] = do(s)
			tell(s, true)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// failed is the error of a script, nil if it has none.
func failed(s Script, err error, stderr *output) error {
	if err == nil {
		return nil
	}
	return &ScriptError{Script: s, Err: err, Stderr: stderr.tail()}
}

// overBudget is why a script was ended.
type overBudget time.Duration

func (b overBudget) Error() string {
	return fmt.Sprintf("took longer than its budget (%v) and was ended", time.Duration(b))
}

func within(ctx context.Context, budget time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, budget, overBudget(budget))
}

// cancelled is why a script was ended when its context was.
func cancelled(ctx context.Context) error {
	cause := context.Cause(ctx)
	if _, ours := errors.AsType[overBudget](cause); ours {
		return cause
	}
	return fmt.Errorf("was cancelled: %w", cause)
}

func (r *Runner) warn(text string, s Script, err error) {
	if r.Log != nil {
		r.Log.Warn(text, "job", s.Job, "script", s.Name, "error", err)
	}
}
