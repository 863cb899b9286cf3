package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// RecoverOptions are what Recover is told.
type RecoverOptions struct {
	// Force also thaws what a living daemon holds frozen.
	Force bool
	// Runs are the ids of the runs whose records are looked at; nil for all.
	Runs []string
}

// Recovery is what Recover did about a state file.
type Recovery string

// Values of Recovery.
const (
	RecoveryStale  Recovery = "stale"  // of an earlier boot: removed
	RecoveryInUse  Recovery = "in use" // its creator lives, and no force: left alone
	RecoveryEnded  Recovery = "ended"  // nothing was frozen any more: removed
	RecoveryThawed Recovery = "thawed" // Recover thawed: removed
	RecoveryStuck  Recovery = "stuck"  // could not be thawed in time: kept, see Err
)

// Recovered is what Recover found and did about one state file.
type Recovered struct {
	Path     string // of the state file
	RunID    string
	Creator  Process
	Recovery Recovery
	Result   Result
	Err      error // matches ErrStuck
}

// Recover brings every state file in dir to its end. A guard that is alive
// while its creator is dead gets 2 s to thaw by itself and is killed then.
// Several Recovers may run at once. A file that cannot be understood is kept
// and is part of the error, as an [*UnreadableError]; the others are recovered
// all the same.
func Recover(ctx context.Context, b *Binary, dir string, o RecoverOptions) ([]Recovered, error) {
	boot, err := bootID()
	if err != nil {
		return nil, fmt.Errorf("cannot recover: %w", err)
	}
	paths, err := statePaths(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot recover: %w", err)
	}
	r := recoverer{binary: b, boot: boot, force: o.Force}
	found, errs := make([]*Recovered, len(paths)), make([]error, len(paths))
	var all sync.WaitGroup
	for i, path := range paths {
		if o.passesOver(dir, path) {
			continue
		}
		all.Go(func() { found[i], errs[i] = r.file(ctx, path) })
	}
	all.Wait()
	var recovered []Recovered
	for _, f := range found {
		if f != nil {
			recovered = append(recovered, *f)
		}
	}
	return recovered, errors.Join(errs...)
}

// passesOver says whether a state file is of no run that was named.
func (o RecoverOptions) passesOver(dir, path string) bool {
	return o.Runs != nil && !slices.ContainsFunc(o.Runs, func(id string) bool { return statePath(dir, id) == path })
}

// recoverer is one call of Recover.
type recoverer struct {
	binary *Binary
	boot   string
	force  bool
}

// file recovers the state file at path. It returns nil when somebody else has.
func (r recoverer) file(ctx context.Context, path string) (*Recovered, error) {
	s, err := openState(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &UnreadableError{Path: path, Err: err}
	}
	defer s.close()
	wait, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	locked := s.lock(wait)
	if s.removed() {
		return nil, nil
	}
	rec, err := s.read()
	if err != nil {
		return nil, &UnreadableError{Path: path, Err: err}
	}
	if locked != nil {
		return r.leave(s, rec, locked), nil
	}
	return r.record(ctx, s, rec)
}

// leave tells of a record that somebody else is recovering and has not come to
// an end with.
func (r recoverer) leave(s *stateFile, rec *Record, locked error) *Recovered {
	return &Recovered{
		Path: s.path, RunID: rec.RunID, Creator: rec.Creator, Result: rec.result(), Recovery: RecoveryStuck,
		Err: errors.Join(&StuckError{Paths: rec.owedPaths()}, locked),
	}
}

// record recovers a state file that is locked and says rec.
func (r recoverer) record(ctx context.Context, s *stateFile, rec *Record) (*Recovered, error) {
	found := &Recovered{Path: s.path, RunID: rec.RunID, Creator: rec.Creator, Result: rec.result()}
	if rec.BootID != r.boot {
		found.Recovery = RecoveryStale
		return found, s.remove()
	}
	if r.inUse(rec) {
		found.Recovery = RecoveryInUse
		return found, nil
	}
	held, err := r.retire(rec.Guard)
	if err != nil {
		return nil, err
	}
	if held != nil {
		defer held.pidfd.Close()
	}
	return found, r.settle(ctx, s, found, held)
}

// settle ends found's record and says in found how.
func (r recoverer) settle(ctx context.Context, s *stateFile, found *Recovered, held *holdup) error {
	before, err := s.read()
	if err != nil {
		return err
	}
	after, err := settle(ctx, r.binary, s, held)
	if seen, readErr := s.awaitCanary(); after != nil && readErr == nil {
		found.Result = seen.result()
	}
	switch {
	case errors.Is(err, ErrStuck):
		found.Recovery, found.Err = RecoveryStuck, err
		return nil
	case before.owed():
		found.Recovery = RecoveryThawed
	default:
		found.Recovery = RecoveryEnded
	}
	return err
}

// inUse says whether rec is left alone. A guard that is only starting has
// nothing frozen, and force has nothing to thaw.
func (r recoverer) inUse(rec *Record) bool {
	return rec.Creator.alive() && (!r.force || rec.Guard.PID == 0)
}

// retire sees the guard's process p end, and kills it when it does not. It
// returns the pidfd of one that is held up; its caller closes that.
func (r recoverer) retire(p Process) (*holdup, error) {
	pidfd, err := p.pidfd()
	if pidfd == nil || err != nil {
		return nil, err
	}
	if r.force {
		_ = unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGTERM, nil, 0)
	}
	if fired(int(pidfd.Fd()), answerPatience) || fence(int(pidfd.Fd()), fencePatience) {
		return nil, pidfd.Close()
	}
	return &holdup{pidfd: pidfd, pid: p.PID}, nil
}
