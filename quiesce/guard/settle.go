package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// holdup is a guard that was killed and is still held up in the kernel.
type holdup struct {
	pidfd *os.File
	pid   int
}

// settle brings the record of a fenced guard to its end: what is still owed is
// thawed, and the state file removed. What is stuck keeps the file and is the
// error. held is nil when the guard has ended.
func settle(ctx context.Context, b *Binary, s *stateFile, held *holdup) (*Record, error) {
	wait, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	if err := s.lock(wait); err != nil {
		return nil, err
	}
	defer s.unlock()
	rec, err := s.read()
	if err != nil {
		return nil, err
	}
	if rec.owed() {
		if rec, err = thawOwed(ctx, b, s, held); err != nil {
			return rec, err
		}
	}
	return rec, s.remove()
}

// thawOwed has a run of the guard's binary thaw what is owed.
func thawOwed(ctx context.Context, b *Binary, s *stateFile, held *holdup) (*Record, error) {
	runErr := thawRun(ctx, b, s, held)
	rec, err := s.read()
	if err != nil || !rec.owed() {
		return rec, err
	}
	stuck := &StuckError{Paths: rec.owedPaths()}
	if held != nil {
		stuck.Stack = stacks(held.pid)
	}
	return rec, errors.Join(stuck, rec.failures("thaw"), runErr)
}

// thawRun runs "quiesced-guard thaw" for as long as childPatience. A run that
// waits for a held-up guard then goes on, to thaw within milliseconds of that
// guard's FIFREEZE; one that is held up itself is killed and left to end when it
// can. Until it has ended, another would only be held up beside it.
func thawRun(ctx context.Context, b *Binary, s *stateFile, held *holdup) error {
	ctx, cancel := context.WithTimeout(ctx, childPatience)
	defer cancel()
	if !b.awaitRun(ctx, s.path) {
		return errors.New("an earlier run of the guard is still held up")
	}
	state, err := s.reopen()
	if err != nil {
		return err
	}
	defer state.Close()
	cmd := b.command(state, []string{"thaw"})
	if held != nil {
		cmd = b.command(state, []string{"thaw", "held"}, held.pidfd)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot run the guard: %w", err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	if held == nil {
		_ = cmd.Process.Kill()
	}
	select {
	case <-ended:
	case <-time.After(fencePatience):
		b.keepRun(s.path, ended)
	}
	return fmt.Errorf("a run of the guard was held up: %w", context.Cause(ctx))
}
