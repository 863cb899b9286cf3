package diskcopy

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quiesced/quiesced/agent"
)

// endPatience is how long a child that was killed may take to end: one that waits for its
// disk ends when that has answered.
const endPatience = 2 * time.Second

// Copies implements agent.Copies.
type Copies struct {
	// Command runs Main with the arguments that are added to it.
	Command []string

	mu    sync.Mutex
	stuck map[string]int // guarded by mu: pids of children that were killed and have not ended, by mount
}

// Read reads the copy on a mount. The errors are agent.ErrNoCopy, agent.ErrBadCopy and
// others, after which nobody knows what is there.
func (c *Copies) Read(ctx context.Context, at agent.Place) (agent.Copy, error) {
	out, err := c.run(ctx, at.Mount, nil, "read", at.Mount, id(at))
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == exitNone {
		return agent.Copy{}, agent.ErrNoCopy
	}
	if err != nil {
		return agent.Copy{}, fmt.Errorf("cannot read the catalogue's copy on %q: %w", at.Mount, err)
	}
	found, err := decode(out)
	if err != nil {
		return found, fmt.Errorf("cannot use the catalogue's copy on %q: %w", at.Mount, err)
	}
	return found, nil
}

// Write replaces the copy on a mount. What is there is kept under its name with a word
// added, unless that is "".
func (c *Copies) Write(ctx context.Context, at agent.Place, which agent.Copy, aside string) error {
	doc, err := encode(which)
	if err == nil {
		_, err = c.run(ctx, at.Mount, doc, "write", at.Mount, id(at), strconv.Itoa(len(doc)), aside)
	}
	if err != nil {
		return fmt.Errorf("cannot write the catalogue's copy on %q: %w", at.Mount, err)
	}
	return nil
}

func id(at agent.Place) string { return strconv.FormatUint(at.MountID, 10) }

// Stuck names a child that was killed and has not ended: it sleeps in the kernel, and may
// still write. nil for none.
func (c *Copies) Stuck() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for mount, pid := range c.stuck {
		return stuckError(mount, pid)
	}
	return nil
}

func stuckError(mount string, pid int) error {
	return fmt.Errorf("process %d, which was to keep the catalogue's copy on %q, does not end: somebody else has frozen that, or its disk hangs", pid, mount)
}

// run runs a child to its end, or kills it when ctx ends.
func (c *Copies) run(ctx context.Context, mount string, doc []byte, args ...string) ([]byte, error) {
	c.mu.Lock()
	pid, busy := c.stuck[mount]
	c.mu.Unlock()
	if busy {
		return nil, stuckError(mount, pid)
	}
	child := exec.Command(c.Command[0], append(c.Command[1:len(c.Command):len(c.Command)], args...)...)
	var out, errs bytes.Buffer
	child.Stdin, child.Stdout, child.Stderr = bytes.NewReader(doc), &out, &errs
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := child.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() {
		err := child.Wait()
		c.forget(mount)
		ended <- err
	}()
	select {
	case err := <-ended:
		return out.Bytes(), told(err, errs.String())
	case <-ctx.Done():
	}
	return nil, c.kill(mount, child, ended, context.Cause(ctx))
}

func (c *Copies) kill(mount string, child *exec.Cmd, ended <-chan error, why error) error {
	c.mu.Lock()
	if c.stuck == nil {
		c.stuck = map[string]int{}
	}
	c.stuck[mount] = child.Process.Pid
	c.mu.Unlock()
	_ = child.Process.Kill()
	limit := time.NewTimer(endPatience)
	defer limit.Stop()
	select {
	case <-ended: //nolint:errcheck // it was killed
		c.forget(mount)
		return why
	case <-limit.C:
		return errors.Join(why, stuckError(mount, child.Process.Pid))
	}
}

func (c *Copies) forget(mount string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.stuck, mount)
}

// told is a child's error in its own words.
func told(err error, words string) error {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 1 {
		return err
	}
	return errors.New(cmp.Or(strings.TrimSpace(words), err.Error()))
}
