package cpi

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

// ErrorType is the class of an error that a CPI answers. A type is itself an
// error to compare with: errors.Is(err, cpi.DiskNotFound).
type ErrorType string

// The types that a director knows. On the wire each has Bosh::Clouds:: before
// it.
const (
	CpiError         ErrorType = "CpiError"
	NotSupported     ErrorType = "NotSupported"
	NotImplemented   ErrorType = "NotImplemented"
	CloudError       ErrorType = "CloudError"
	VMNotFound       ErrorType = "VMNotFound"
	NetworkNotFound  ErrorType = "NetworkNotFound"
	NoDiskSpace      ErrorType = "NoDiskSpace"
	DiskNotAttached  ErrorType = "DiskNotAttached"
	DiskNotFound     ErrorType = "DiskNotFound"
	VMCreationFailed ErrorType = "VMCreationFailed"

	// UnknownError stands for every other type, as it does in a director.
	UnknownError ErrorType = "UnknownError"
)

const typePrefix = "Bosh::Clouds::"

// Error is the type as text, which makes a type comparable with errors.Is.
func (t ErrorType) Error() string { return string(t) }

func (t ErrorType) known() bool {
	switch t {
	case CpiError, NotSupported, NotImplemented, CloudError, VMNotFound, NetworkNotFound,
		NoDiskSpace, DiskNotAttached, DiskNotFound, VMCreationFailed:
		return true
	}
	return false
}

// Error is an error that a CPI answered. The call was made and answered in
// full; whether the CPI did something before it failed, only it knows.
type Error struct {
	Type ErrorType

	// Original is the type as it was sent, where Type is UnknownError.
	Original string

	Message   string
	OKToRetry bool
}

// Errorf makes an error that is not worth a retry.
func Errorf(t ErrorType, format string, args ...any) *Error {
	return &Error{Type: t, Message: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string {
	name := string(e.Type)
	if e.Type == UnknownError && e.Original != "" {
		name = fmt.Sprintf("%s (%q)", name, e.Original)
	}
	return fmt.Sprintf("%s: %s", name, e.Message)
}

// Is makes errors.Is match an ErrorType.
func (e *Error) Is(target error) bool {
	t, ok := target.(ErrorType)
	return ok && t == e.Type
}

// errorOfType names the type as a director would. Without the prefix it does
// not know a name either.
func errorOfType(sent string) *Error {
	name, prefixed := strings.CutPrefix(sent, typePrefix)
	if t := ErrorType(name); prefixed && t.known() {
		return &Error{Type: t}
	}
	return &Error{Type: UnknownError, Original: sent}
}

// wireType is the inverse of errorOfType.
func (e *Error) wireType() string {
	if e.Type.known() {
		return typePrefix + string(e.Type)
	}
	if e.Original != "" {
		return e.Original
	}
	return string(e.Type)
}

var (
	// ErrUnusable is returned when the CPI is missing, no regular file or not
	// executable: no process was started.
	ErrUnusable = errors.New("no usable CPI")

	// ErrNoAnswer is returned when a CPI ended without printing anything.
	ErrNoAnswer = errors.New("the CPI ended without an answer")

	// ErrNoCID is returned when snapshot_disk answered something else than a
	// CID. There may be a snapshot all the same, which nobody can name.
	ErrNoCID = errors.New("the CPI named no snapshot")

	// ErrNotArmed is returned by Call.Arm when its context ended before the
	// CPI had read its request. Such a call can be sent all the same.
	ErrNotArmed = errors.New("the CPI has not read its request yet")

	// ErrAborted is returned by Call.Send after Call.Abort.
	ErrAborted = errors.New("the call was aborted")

	errNothing = errors.New("it is empty")
)

// InvalidResponseError is returned for output that is no answer. A director
// calls it InvalidResponse.
type InvalidResponseError struct {
	Reason string

	// Stdout and Stderr are the ends of what was printed, without the values
	// of the request's context.
	Stdout, Stderr string

	empty bool
}

func (e *InvalidResponseError) Error() string {
	text := "invalid response: " + e.Reason
	if e.Stdout != "" {
		text += fmt.Sprintf("; stdout ends with %q", e.Stdout)
	}
	return text + stderrClause(e.Stderr)
}

// Is makes errors.Is match ErrNoAnswer where nothing at all was printed.
func (e *InvalidResponseError) Is(target error) bool {
	return e.empty && target == ErrNoAnswer
}

// SignalError is returned for a CPI that a signal ended before it had
// answered.
type SignalError struct {
	Signal syscall.Signal

	// Err says what was wrong with the output until then.
	Err error
}

func (e *SignalError) Error() string {
	return fmt.Sprintf("the CPI was ended by a signal (%v): %v", e.Signal, e.Err)
}

func (e *SignalError) Unwrap() error { return e.Err }

// DeadlineError is returned by Client.Do for a CPI that had not answered when
// the context ended, and was killed for it. What it had done by then is not
// known.
type DeadlineError struct {
	// Stderr is the end of what the CPI printed there.
	Stderr string

	// Cause is the context's.
	Cause error
}

func (e *DeadlineError) Error() string {
	return fmt.Sprintf("the CPI was killed before it had answered: %v", e.Cause) + stderrClause(e.Stderr)
}

func (e *DeadlineError) Unwrap() error { return e.Cause }

func stderrClause(tail string) string {
	if tail == "" {
		return ""
	}
	return fmt.Sprintf("; stderr ends with %q", tail)
}

// unusable wraps the cause without its repetition of the path.
func unusable(path string, cause error) error {
	var p *fs.PathError
	if errors.As(cause, &p) {
		cause = p.Err
	}
	return fmt.Errorf("cannot use %q: %w: %w", path, ErrUnusable, cause)
}
