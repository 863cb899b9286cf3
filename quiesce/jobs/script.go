package jobs

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// The scripts of a job, below its bin directory.
const (
	PreStop      = "pre-stop"
	Drain        = "drain"
	PostStop     = "post-stop"
	PreStart     = "pre-start"
	PostStart    = "post-start"
	PreSnapshot  = "quiesced/pre-snapshot"
	PostSnapshot = "quiesced/post-snapshot"
	Metadata     = "bbr/metadata"
	Lock         = "bbr/pre-backup-lock"
	Unlock       = "bbr/post-backup-unlock"
)

// Layout says where jobs lie.
type Layout struct {
	Root  string // has jobs/JOB/bin and sys/log/JOB: /var/vcap on a BOSH VM
	Own   string // the job whose scripts are never run, since it is ours
	Hooks string // a directory with a pre-snapshot and a post-snapshot of no job; "" for none
}

// Script is one script of one job.
type Script struct {
	Job  string // "" for one of Layout.Hooks
	Name string // one of the constants
	Path string
}

func (s Script) String() string { return fmt.Sprintf("%s of job %q", s.Name, s.Job) }

// ScriptError says how a script failed.
type ScriptError struct {
	Script Script
	Err    error  // its exit status, or what kept it from running or ended it
	Stderr string // the tail of what it printed there
}

// Runner runs scripts as bosh-agent does, within a budget each.
type Runner struct {
	Layout Layout
	Log    *slog.Logger
}

// Scripts are the scripts of a name, sorted by job.
func (l Layout) Scripts(name string) ([]Script, error) { panic("not built") }

// Run runs scripts all at once and waits for all. Its error joins *ScriptErrors.
func (r *Runner) Run(ctx context.Context, scripts []Script, budget time.Duration, told func(s Script, done bool)) error {
	panic("not built")
}

// Drain runs drain scripts all at once, each for as long as it asks for.
func (r *Runner) Drain(ctx context.Context, scripts []Script, budget time.Duration, told func(s Script, done bool)) error {
	panic("not built")
}

// LockLayers are the lock scripts in the order in which they are to be run: those
// of one layer at once, one layer after the other.
func (r *Runner) LockLayers(ctx context.Context) ([][]Script, error) { panic("not built") }

// EndLeft ends the scripts that a daemon which is gone has left behind unfinished,
// and lists them.
func (r *Runner) EndLeft(ctx context.Context) ([]Script, error) { panic("not built") }

func (e *ScriptError) Error() string {
	text := fmt.Sprintf("%s failed: %v", e.Script, e.Err)
	if e.Stderr != "" {
		text += ": " + e.Stderr
	}
	return text
}

func (e *ScriptError) Unwrap() error { return e.Err }
