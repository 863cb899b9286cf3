package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// How long others are waited for.
const (
	answerPatience = 2 * time.Second        // a guard's own thaw
	fencePatience  = 500 * time.Millisecond // the end of a killed process
	lockPatience   = 10 * time.Second       // another recovery of the same file
	childPatience  = 2 * time.Second        // a "thaw" run

	overduePatience = time.Second // a guard whose deadline has passed
)

// Guard is a running guard. Its methods may be called from several goroutines.
type Guard struct {
	binary   *Binary
	state    *stateFile
	commands *os.File // the guard takes its end for our death
	pidfd    *os.File
	process  Process
	canary   *canary // nil if there is none
	deadline time.Duration

	replies chan reply
	end     *sync.Once    // closes done
	done    chan struct{} // the guard said its last word, or ended
	exited  chan struct{} // the guard has ended and is waited for

	mu   sync.Mutex // guards said
	said []string

	thawing sync.Mutex // guards settled and result, and is held while thawing
	settled bool
	result  Result
}

// Process returns the guard's process.
func (g *Guard) Process() Process { return g.process }

// Done is closed when the guard has ended, or has thawed by itself, or could
// not freeze. Thaw tells what came of it.
func (g *Guard) Done() <-chan struct{} { return g.done }

// Sync writes out all filesystems, in parallel. After an error other than an
// [*Error] the guard can only be thawed.
func (g *Guard) Sync(ctx context.Context) error {
	g.send('s')
	if err := g.await(ctx, "sync", saysSynced); err != nil {
		return fmt.Errorf("cannot write out: %w", err)
	}
	return nil
}

// errOverdue is the cause of a Freeze that was given up.
var errOverdue = errors.New("the deadline has passed, and the kernel holds the guard up")

// Freeze freezes all filesystems, rank by rank. The deadline counts from here,
// and heartbeats are due: Freeze sends its own, after it the caller must. On an
// error everything it froze is thawed, or the error matches [ErrStuck]: a FIFREEZE
// that no deadline ends is given up shortly after it.
func (g *Guard) Freeze(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, g.deadline+overduePatience, errOverdue)
	defer cancel()
	g.send('f')
	err := g.await(ctx, "freeze", saysFrozen)
	if err == nil {
		return nil
	}
	_, thawErr := g.Thaw(context.WithoutCancel(ctx))
	return errors.Join(fmt.Errorf("cannot freeze: %w", err), thawErr)
}

// Beat is the heartbeat. It never blocks.
func (g *Guard) Beat() { g.send('.') }

// send sends one command. What a full or closed pipe loses, the waiting for the
// answer notices.
func (g *Guard) send(command byte) {
	raw, err := g.commands.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Write(func(fd uintptr) bool {
		_, _ = unix.Write(int(fd), []byte{command})
		return true
	})
}

// await waits for the answer want to what op names, beating meanwhile: whoever
// waits here is alive.
func (g *Guard) await(ctx context.Context, op string, want answerKind) error {
	beat := time.NewTicker(100 * time.Millisecond)
	defer beat.Stop()
	for {
		select {
		case r, ok := <-g.replies:
			if ok && r.kind == want {
				return nil
			}
			return g.failure(op, r.text)
		case <-beat.C:
			g.Beat()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// failure explains why the guard did not do what op names.
func (g *Guard) failure(op, text string) error {
	rec, err := g.state.read()
	if err != nil {
		return err
	}
	if err := rec.failures(op); err != nil {
		return err
	}
	if text == "" {
		text = g.words()
	}
	return &EndedError{Cause: rec.Cause, Detail: text}
}

// Thaw thaws what is frozen, ends the guard, and returns what came of the
// freeze. A guard that does not answer is killed, and a run of its own thaws
// what it left. Cancelling ctx only shortens the wait for the guard: the thaw is
// made either way, within 6 seconds. Called again, Thaw returns the same, or
// when it was [ErrStuck] tries again.
func (g *Guard) Thaw(ctx context.Context) (Result, error) {
	g.thawing.Lock()
	defer g.thawing.Unlock()
	if g.settled {
		return g.result, nil
	}
	g.send('t')
	wait, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	select {
	case <-g.done:
	case <-wait.Done():
	}
	held := g.retire(fencePatience)
	rec, err := settle(context.WithoutCancel(ctx), g.binary, g.state, held)
	if rec != nil {
		g.result = rec.result()
	}
	if g.canary.letGo() {
		g.heard(reply{saysWarning, "the canary ended early: a thaw by somebody else would not have been noticed"})
	}
	if err == nil {
		g.settled = true
		g.canary.release()
		if seen, err := g.state.awaitCanary(); err == nil {
			g.result = seen.result()
		}
		g.release()
	}
	return g.result, err
}

// retire sees the guard's process end. A guard that has said its last word gets
// wait to do so by itself. It returns the pidfd of one that is held up.
func (g *Guard) retire(wait time.Duration) (held *holdup) {
	select {
	case <-g.done:
		if fired(int(g.pidfd.Fd()), wait) {
			<-g.exited // only waited for any more
			return nil
		}
	default:
	}
	if fence(int(g.pidfd.Fd()), fencePatience) {
		<-g.exited
		return nil
	}
	return &holdup{pidfd: g.pidfd, pid: g.process.PID}
}

// release frees what the guard held in this process.
func (g *Guard) release() {
	g.commands.Close()
	g.pidfd.Close()
	g.state.close()
}
