package guard

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// ErrFrozenByOther matches an [*Error] of a filesystem that somebody else holds
// frozen. It is left as it is.
var ErrFrozenByOther = errors.New("frozen by somebody else")

// ErrMoved matches an [*Error] of a path at which the surveyed mount is no more.
var ErrMoved = errors.New("no longer the mount that was surveyed")

// ErrStuck matches the error of a thaw that did not come to its end in time.
var ErrStuck = errors.New("stuck")

// Error is what failed for one filesystem.
type Error struct {
	Op    string // "open", "sync", "freeze" or "thaw"
	Path  string
	Errno syscall.Errno
}

func (e *Error) Error() string {
	reason := e.Errno.Error()
	for _, known := range []error{ErrFrozenByOther, ErrMoved} {
		if e.Is(known) {
			reason = known.Error()
		}
	}
	return fmt.Sprintf("cannot %s %q: %s", e.Op, e.Path, reason)
}

// Is matches the sentinels of this package.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrFrozenByOther:
		return e.Op == "freeze" && e.Errno == syscall.EBUSY
	case ErrMoved:
		return e.Op == "open" && e.Errno == syscall.ESTALE
	}
	return false
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// EndedError is returned when the guard thawed before it did what was asked.
type EndedError struct {
	Cause  Cause  // CauseNone: it died, or could not start
	Detail string // what it had to say
}

func (e *EndedError) Error() string {
	if e.Cause != CauseNone {
		return "the guard thawed and ended: " + e.Cause.String()
	}
	return strings.TrimSpace("the guard ended unexpectedly " + e.Detail)
}

// StuckError names what is still frozen, or may become so. It matches [ErrStuck].
type StuckError struct {
	Paths []string
	Stack string // kernel stacks of the guard's threads in D state
}

func (e *StuckError) Error() string {
	return fmt.Sprintf("cannot thaw %q in time: stuck", e.Paths)
}

// Is matches [ErrStuck].
func (e *StuckError) Is(target error) bool { return target == ErrStuck }

// UnreadableError is of a state file that cannot be read or understood. What it
// tells of may be frozen, and nobody knows what that is.
type UnreadableError struct {
	Path string
	Err  error // names Path
}

func (e *UnreadableError) Error() string {
	return fmt.Sprintf("cannot recover the freeze on record: %v", e.Err)
}

// Unwrap returns why.
func (e *UnreadableError) Unwrap() error { return e.Err }

// failures returns an error for each of r's filesystems for which op failed, or
// its thaw.
func (r *Record) failures(op string) error {
	var errs []error
	for i, c := range r.Cells {
		e := &Error{Op: op, Path: r.Filesystems[i].Path, Errno: c.Errno}
		switch {
		case c.Errno == 0 || c.State == StateNone && op != "sync":
			continue // or left over from an earlier sync
		case c.State.owed():
			e.Op = "thaw"
		}
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}
