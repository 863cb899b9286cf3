package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// canaryPatience is how long a canary may take to get ready.
const canaryPatience = 2 * time.Second

// canary is the process that notices when somebody else thaws: one thread for
// each frozen filesystem waits there in the kernel, in a call that changes
// nothing. It holds none of the guard's pipes.
type canary struct {
	leash  *os.File      // its end tells the canary to go
	exited chan struct{} // closed when it has
}

// startCanary starts a canary for state and returns when its threads are there.
// woken is the eventfd that tells the guard to look.
func startCanary(ctx context.Context, b *Binary, state, woken *os.File) (*canary, error) {
	stdin, leash, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	said, stdout, err := os.Pipe()
	if err != nil {
		leash.Close()
		return nil, err
	}
	defer said.Close()
	cmd := b.command(state, []string{"canary"}, woken)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stdout
	err = cmd.Start()
	stdout.Close()
	if err != nil {
		leash.Close()
		return nil, err
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	if err := hearReady(ctx, said); err != nil {
		leash.Close()
		_ = cmd.Process.Kill()
		return nil, err
	}
	return &canary{leash: leash, exited: exited}, nil
}

// hearReady waits for the canary's "ready".
func hearReady(ctx context.Context, said *os.File) error {
	until := time.Now().Add(canaryPatience)
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	if err := said.SetReadDeadline(until); err != nil {
		return err
	}
	var heard strings.Builder
	ready := false
	readAnswers(said, func(r reply) {
		if r.kind == saysReady {
			ready = true
			_ = said.SetReadDeadline(time.Unix(1, 0))
			return
		}
		fmt.Fprintf(&heard, " %s", r.text)
	})
	if !ready {
		return errors.New("it is not ready:" + heard.String())
	}
	return nil
}

// letGo lets the canary end once nothing is frozen any more, whoever thaws. It
// says whether it had ended before.
func (c *canary) letGo() (early bool) {
	if c == nil {
		return false
	}
	select {
	case <-c.exited:
		early = c.leash.Close() == nil // not for the second time
	default:
		c.leash.Close()
	}
	return early
}

// release lets the canary go, once nothing is frozen any more, and waits for it:
// its descriptors keep the filesystems mounted, and what it saw is to be read.
func (c *canary) release() {
	if c == nil {
		return
	}
	c.leash.Close()
	select {
	case <-c.exited:
	case <-time.After(fencePatience):
	}
}

// neverThere is too long for a name, so that no directory has it. The kernel
// waits for the thaw before it finds that out.
var neverThere = strings.Repeat("x", 256)

// runCanary is the "canary" run.
func (p *program) runCanary() int {
	for _, m := range p.mounts {
		var err error
		if m.fd, err = m.open(true); err != nil {
			answer("failed cannot open " + m.Path + ": " + err.Error())
			return exitFailed
		}
	}
	harden(len(p.mounts))
	for _, m := range p.mounts {
		p.thread(func() { m.watch() })
	}
	answer("ready")
	unix.Close(answersFD)
	p.awaitFreezes()
	return exitThawed
}

// watch waits in the kernel from the freeze of m to its thaw, and says when that
// was.
func (m *mount) watch() {
	m.ordered.pass()
	m.cell.sentAt.Store(boottime())
	_ = unix.Unlinkat(m.fd, neverThere, unix.AT_REMOVEDIR)
	m.cell.wokenAt.Store(boottime())
	gate(wokenFD).open()
}

// awaitFreezes sends each mount's thread to wait as soon as the guard says that
// it is frozen. It returns when the leash has ended, nothing is frozen any more
// and every thread is back.
func (p *program) awaitFreezes() {
	sent := make([]bool, len(p.mounts))
	for !p.canaryMayGo(sent) {
		for i, m := range p.mounts {
			if m.cell.state() == StateFrozen && !sent[i] {
				sent[i] = true
				m.ordered.open()
			}
		}
	}
}

// canaryMayGo waits for the leash's end for a millisecond, and says whether that
// has come and no thread is out, or may yet have to go.
func (p *program) canaryMayGo(sent []bool) bool {
	const tick = 1 // ms; a foreign thaw and freeze take several
	p.poll[0] = unix.PollFd{Fd: commandsFD, Events: unix.POLLIN}
	n, _ := unix.Poll(p.poll[:1], tick)
	if n <= 0 {
		return false
	}
	for i, m := range p.mounts {
		if (m.cell.state().owed() || sent[i]) && m.cell.wokenAt.Load() == 0 {
			pause(tick)
			return false
		}
	}
	return true
}
