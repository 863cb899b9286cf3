package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"

	// niceness is how much lower than ours a script's priority is.
	niceness = 5

	// lastWords is how long a script's output is waited for that has ended, while
	// what it left running holds a pipe.
	lastWords = 5 * time.Second

	// grace is what processes that were killed are given to end. One that is held up
	// in the kernel ends when it can.
	grace = 5 * time.Second
)

// call is one execution of a script.
type call struct {
	script         Script
	within         []string // the command that runs it, none for itself
	alone          bool     // nothing that it started goes on without it
	args           []string
	env            []string // beside PATH and the mark
	stdout, stderr *output
}

// process is a script that runs.
type process struct {
	cmd   *exec.Cmd
	group *cgroup // nil where there is none
	alone bool
	ended chan error
}

// run runs a script until ctx ends. The error is of the kind that a ScriptError has.
func (r *Runner) run(ctx context.Context, c call) error {
	if ctx.Err() != nil {
		return cancelled(ctx)
	}
	p, err := r.start(c)
	if err != nil {
		return fmt.Errorf("cannot be started: %w", err)
	}
	return p.wait(ctx)
}

// start starts a script in a new control group, if it can be. Before Linux 5.7 a
// process moves there only once it runs.
func (r *Runner) start(c call) (*process, error) {
	m := r.Layout.mark(c.script)
	group := newCgroup(m)
	if group == nil {
		return c.start(m, nil)
	}
	p, err := c.start(m, group)
	if err == nil {
		return p, nil
	}
	p, err = c.start(m, nil)
	if err != nil || group.add(p.cmd.Process.Pid) != nil {
		group.remove()
		return p, err
	}
	p.group = group
	return p, nil
}

func (c call) start(m mark, group *cgroup) (*process, error) {
	argv := slices.Concat(c.within, []string{c.script.Path}, c.args)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = append([]string{path, m.variable(group != nil)}, c.env...)
	cmd.Stdout, cmd.Stderr = c.stdout.writer(), c.stderr.writer()
	cmd.WaitDelay = lastWords
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if group != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.dir.Fd())
	}
	if err := startNicely(cmd); err != nil {
		if failed, ok := errors.AsType[*fs.PathError](err); ok {
			err = failed.Err
		}
		return nil, err
	}
	sparedNoMore(cmd.Process.Pid)
	p := &process{cmd: cmd, group: group, alone: c.alone, ended: make(chan error, 1)}
	go func() { p.ended <- outcome(cmd.Wait()) }()
	return p, nil
}

// sparedNoMore has a script, and a service that it may start, be no safer than others
// when memory runs out, as the daemon may be by its unit.
func sparedNoMore(pid int) {
	const file = "/proc/%v/oom_score_adj"
	if own, err := os.ReadFile(fmt.Sprintf(file, "self")); err == nil && bytes.HasPrefix(own, []byte("-")) {
		_ = os.WriteFile(fmt.Sprintf(file, pid), []byte("0"), 0)
	}
}

// startNicely starts a command with a lower priority from its first instruction
// on: a child begins with that of the thread that starts it.
func startNicely(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		answer, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		ours := 20 - answer // as the kernel's interface has it
		if err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, 0, min(ours+niceness, 19))
		}
		started <- cmd.Start()
		// A thread that may not have its priority again ends with the goroutine.
		if err != nil || unix.Setpriority(unix.PRIO_PROCESS, 0, ours) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return <-started
}

// outcome is a script's failure, by what waiting for it answers.
func outcome(err error) error {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		if errors.Is(err, exec.ErrWaitDelay) { // somebody else holds a pipe; it ended well
			return nil
		}
		return err
	}
	return exitError{exit.Sys().(syscall.WaitStatus)}
}

// exitError is the failure of a script that ended by itself.
type exitError struct{ status syscall.WaitStatus }

func (e exitError) Error() string {
	if e.status.Signaled() {
		return fmt.Sprintf("killed by signal %d", int(e.status.Signal()))
	}
	return fmt.Sprintf("exit status %d", e.status.ExitStatus())
}

// wait waits for a script's end, and ends what is left of one that failed.
func (p *process) wait(ctx context.Context) error {
	select {
	case err := <-p.ended:
		return p.finish(err)
	case <-ctx.Done():
	}
	select {
	case err := <-p.ended: // in time, yet
		return p.finish(err)
	default:
	}
	err := cancelled(ctx)
	p.killGroup()
	p.killAll()
	select {
	case <-p.ended: //nolint:errcheck // killed, as it was to be
		return err
	case <-time.After(grace):
		return fmt.Errorf("%w; it is held up in the kernel, and ends when it can", err)
	}
}

// finish deals with what a script that has ended has left running.
func (p *process) finish(err error) error {
	switch {
	case err == nil && p.group != nil && !p.alone:
		p.group.release()
	case p.group != nil:
		p.killAll()
	case err != nil || p.alone:
		p.killGroup()
	}
	return err
}

func (p *process) killGroup() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }

func (p *process) killAll() {
	if p.group == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if p.group.kill(ctx) == nil {
		p.group.remove()
	}
}
