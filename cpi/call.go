package cpi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// armPoll is how often Arm looks whether the request was read.
	armPoll = 2 * time.Millisecond

	// abortGrace is what Abort leaves a CPI to notice that its request ends
	// too early, and again between SIGTERM and SIGKILL.
	abortGrace = time.Second
)

// Call is one call of a CPI, in a process of its own. It is made by Prepare, or
// by Reattach for a process that an earlier daemon started.
//
// Every prepared call must come to Send or Abort. A call that was sent goes on
// whatever becomes of its caller.
type Call struct {
	path    string // of the CPI
	method  string // empty when reattached
	secrets secrets
	process Process
	output  output

	input *input      // nil when reattached
	child *os.Process // nil when reattached

	ended  chan struct{} // closed when the process has ended
	reaped chan struct{} // closed when status is set as well

	fixed  chan struct{} // closed when what the snapshot holds is fixed
	fixing sync.Once     // closes fixed

	// mu keeps the process from being reaped while its group is signalled:
	// until then no other group can have its id. It guards status.
	mu     sync.Mutex
	status syscall.WaitStatus
}

// Prepare starts the CPI and gives it the request up to the last byte. It
// creates everything that the call needs on disk: the directory, and the files
// stdout and stderr in it. One directory serves one call.
func (c *Client) Prepare(dir, method string, args ...any) (*Call, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	request := c.request(method, args)
	document, err := request.Encode()
	if err != nil {
		return nil, err
	}
	call := c.newCall(dir)
	call.method = method
	if err := call.start(document); err != nil {
		return nil, fmt.Errorf("cannot start %q for %s: %w", c.Path, method, err)
	}
	return call, nil
}

// Reattach takes over the call of an earlier process of ours, whose files lie
// in dir. Such a call can be waited for and killed. The process is only taken
// for the one that was started if its start time agrees; that the machine was
// not booted in between, the caller has to know.
func (c *Client) Reattach(dir string, p Process) (*Call, error) {
	pidfd, err := openProcess(p)
	if err != nil {
		return nil, err
	}
	call := c.newCall(dir)
	call.process = p
	if pidfd < 0 {
		close(call.ended)
		close(call.reaped)
		call.fix()
		return call, nil
	}
	go call.watch(pidfd)
	return call, nil
}

func (c *Client) newCall(dir string) *Call {
	return &Call{
		path:    c.Path,
		secrets: secretsOf(c.Context),
		output:  output{dir},
		ended:   make(chan struct{}),
		reaped:  make(chan struct{}),
		fixed:   make(chan struct{}),
	}
}

func (c *Call) start(document []byte) error {
	stdout, stderr, err := c.output.create()
	if err != nil {
		return err
	}
	defer stdout.Close()
	defer stderr.Close()
	n := len(document) - 1
	in, stdin, err := newInput(document[:n], document[n:])
	if err != nil {
		return err
	}
	defer stdin.Close()
	c.input = in
	if err := c.spawn(stdin, stdout, stderr); err != nil {
		in.close()
		c.output.remove()
		return err
	}
	in.feed()
	return nil
}

// spawn starts the process in a group of its own, so that a signal to the
// daemon's does not reach it and one to its own reaches all of it.
func (c *Call) spawn(stdin, stdout, stderr *os.File) error {
	child, err := os.StartProcess(c.path, []string{c.path}, &os.ProcAttr{
		Dir:   "/",
		Env:   environment(),
		Files: []*os.File{stdin, stdout, stderr},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	started, err := startTime(child.Pid)
	if err != nil {
		return errors.Join(err, discard(child))
	}
	pidfd, err := unix.PidfdOpen(child.Pid, 0)
	if err != nil {
		return errors.Join(fmt.Errorf("cannot open process %d: %w", child.Pid, err), discard(child))
	}
	c.child, c.process = child, Process{PID: child.Pid, StartTime: started}
	go c.watch(pidfd)
	return nil
}

func discard(child *os.Process) error {
	err := child.Kill()
	_, _ = child.Wait()
	return err
}

// watch ends with the process. It is waited for through reaped.
func (c *Call) watch(pidfd int) {
	awaitEnd(pidfd)
	close(c.ended)
	c.fix()
	c.reap()
	close(c.reaped)
}

func (c *Call) reap() {
	if c.child == nil {
		return
	}
	c.input.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	state, err := c.child.Wait()
	if err == nil {
		c.status = state.Sys().(syscall.WaitStatus)
	}
}

// Process names the process, for a journal.
func (c *Call) Process() Process { return c.process }

// Arm waits until the CPI has read all of the request but the last byte: it is
// loaded, and Send needs nothing of it but to go on. ErrNotArmed, which wraps
// the context's cause, is no failure of the call; any other error means that
// the CPI ended or closed its input, and Wait has the reason.
func (c *Call) Arm(ctx context.Context) error {
	if c.input == nil {
		return nil
	}
	tick := time.NewTicker(armPoll)
	defer tick.Stop()
	for {
		drained, err := c.input.drained()
		if c.hasEnded() {
			return c.failed(errors.New("it ended before its request was sent"))
		}
		if err != nil {
			return c.failed(fmt.Errorf("it takes no request: %w", err))
		}
		if drained {
			return nil
		}
		select {
		case <-c.ended:
		case <-ctx.Done():
			return c.failed(fmt.Errorf("%w: %w", ErrNotArmed, context.Cause(ctx)))
		case <-tick.C:
		}
	}
}

// Send gives the CPI the last byte. It does nothing but a write and a close,
// and does not wait for the CPI. The second time it does nothing. After an
// error other than ErrAborted Wait has the answer all the same.
func (c *Call) Send() error {
	if c.input == nil {
		return nil
	}
	if err := c.input.send(); err != nil {
		return c.failed(err)
	}
	return nil
}

// Sent reports whether the CPI may have acted. It is true of a reattached call,
// of which nobody knows.
func (c *Call) Sent() bool { return c.input == nil || c.input.isSent() }

// Abort ends a call that was not sent, of which nothing is left to do. The CPI
// finds its request cut short; if it has not ended a second later it is killed.
// After Send, Abort does nothing.
func (c *Call) Abort() {
	if c.input == nil || !c.input.abort() {
		return
	}
	select {
	case <-c.ended:
	case <-time.After(abortGrace):
		c.Kill(abortGrace)
	}
}

// Kill sends SIGTERM to the CPI's process group and, when the CPI has ended or
// after the grace, SIGKILL to what is left of it. It does not wait after that.
// It does nothing for a CPI that has ended before.
func (c *Call) Kill(grace time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hasEnded() {
		return
	}
	_ = unix.Kill(-c.process.PID, unix.SIGTERM)
	select {
	case <-c.ended:
	case <-time.After(grace):
	}
	// A child of ours holds its group's id until reap has mu. Another's may
	// be reaped, and the id somebody else's.
	if c.child != nil || !c.hasEnded() {
		_ = unix.Kill(-c.process.PID, unix.SIGKILL)
	}
}

func (c *Call) hasEnded() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// Done is closed when the process has ended, before its answer is made durable
// and read: a caller who holds a freeze thaws first, then calls Wait.
func (c *Call) Done() <-chan struct{} { return c.ended }

// Wait waits for the process to end, makes what it printed durable and returns
// its answer, as often as it is called. The end of ctx ends the wait, with the
// context's cause, and not the CPI. A process that the CPI left behind is not
// waited for, even if it holds the files open.
//
// The exit status counts for nothing beside a valid answer. The errors are
// *Error, *InvalidResponseError, which is ErrNoAnswer for no output at all, and
// *SignalError. Only if the answer could not be made durable is there an answer
// beside an error.
func (c *Call) Wait(ctx context.Context) (Answer, error) {
	select {
	case <-c.reaped:
	default:
		select {
		case <-c.reaped:
		case <-ctx.Done():
			return Answer{}, c.failed(context.Cause(ctx))
		}
	}
	return c.answer()
}

func (c *Call) answer() (Answer, error) {
	synced := c.output.sync()
	answer, err := c.output.answer(c.secrets)
	if err != nil {
		return Answer{}, c.failed(c.signalled(err))
	}
	if synced != nil {
		return answer, c.failed(fmt.Errorf("cannot make the answer durable: %w", synced))
	}
	return answer, nil
}

func (c *Call) signalled(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var invalid *InvalidResponseError
	if c.status.Signaled() && errors.As(err, &invalid) {
		return &SignalError{Signal: c.status.Signal(), Err: err}
	}
	return err
}

// waitOrKill is Wait that kills the CPI when ctx ends. An answer that is there
// by then is taken: what it names exists.
func (c *Call) waitOrKill(ctx context.Context, grace time.Duration) (Answer, error) {
	select {
	case <-c.reaped:
		return c.answer()
	case <-ctx.Done():
	}
	c.Kill(grace)
	select {
	case <-c.reaped:
		answer, err := c.answer()
		if !noAnswer(err) {
			return answer, err
		}
	case <-time.After(reapTime):
	}
	late := &DeadlineError{Stderr: c.output.stderrTail(c.secrets), Cause: context.Cause(ctx)}
	return Answer{}, c.failed(late)
}

func noAnswer(err error) bool {
	var invalid *InvalidResponseError
	return errors.As(err, &invalid)
}

func (c *Call) failed(err error) error {
	if c.method == "" {
		return fmt.Errorf("cannot finish the call of %q in %q: %w", c.path, c.output.dir, err)
	}
	return fmt.Errorf("cannot call %s of %q: %w", c.method, c.path, err)
}
