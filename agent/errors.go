package agent

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/quiesced/quiesced/quiesce"
)

// ErrUnknownTask is returned for an id of which no run is known.
var ErrUnknownTask = errors.New("no such task")

// ErrCancelled is the cause of a run that somebody cancelled.
var ErrCancelled = errors.New("the run was cancelled")

// ErrStopping is the cause of a run that the daemon's own end interrupts. Its
// CPI calls go on; the next daemon reads their answers.
var ErrStopping = errors.New("the daemon is stopping")

// RefusedError is returned when a request cannot be carried out as it is.
// Nothing was touched.
type RefusedError struct {
	Field string // the request's field at fault, "" where it is the machine's state
	Err   error
}

func (e *RefusedError) Error() string {
	if e.Field == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("%s: %v", e.Field, e.Err)
}

func (e *RefusedError) Unwrap() error { return e.Err }

func refuse(field, format string, args ...any) error {
	return &RefusedError{Field: field, Err: fmt.Errorf(format, args...)}
}

// NotAttachedError is returned for a disk that this VM does not have.
type NotAttachedError struct {
	CID      string
	Attached []quiesce.Disk // those that it has
}

func (e *NotAttachedError) Error() string {
	var names []string
	for _, d := range e.Attached {
		names = append(names, strconv.Quote(d.CID))
	}
	return fmt.Sprintf("unknown disk %q: this instance has %s", e.CID, cmp.Or(strings.Join(names, ", "), "none"))
}

// BusyError is returned when other work holds the VM.
type BusyError struct {
	Work  string // "run 6f1c…" or "delete-snapshot snap-1"
	Phase Phase
	Since time.Time
}

func (e *BusyError) Error() string {
	what := e.Work
	if e.Phase != "" {
		what += " (" + string(e.Phase) + ")"
	}
	return fmt.Sprintf("busy with %s since %s", what, e.Since.UTC().Format(time.RFC3339))
}

// UnknownSnapshotError is returned for a CID that is not in the catalogue.
type UnknownSnapshotError struct{ CID string }

func (e *UnknownSnapshotError) Error() string {
	return fmt.Sprintf("unknown snapshot %q: it is not one that this instance's daemon took", e.CID)
}
