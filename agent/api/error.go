package api

import (
	"errors"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
)

// Kind sorts errors by what their receiver can do about them.
type Kind string

// The kinds of error.
const (
	KindInvalid       Kind = ""               // a malformed call, or a task that is not known: as bosh-agent says it
	KindUnknownMethod Kind = "unknown_method" // told apart from bosh-agent's refusal by having a kind
	KindRefused       Kind = "refused"        // not as things are; nothing was touched
	KindNotFound      Kind = "not_found"      // an unknown snapshot
	KindNotAttached   Kind = "not_attached"   // a disk that is none of this VM's: there is nothing to quiesce
	KindBusy          Kind = "busy"           // other work holds the VM
	KindForbidden     Kind = "forbidden"      // the caller may not
	KindCancelled     Kind = "cancelled"      // somebody cancelled it; everything was set going again
	KindFailed        Kind = "failed"         // it was tried; everything was set going again
	KindNotResumed    Kind = "not_resumed"    // it was tried; something is still held
	KindUnreachable   Kind = "unreachable"    // no daemon answered; only clients say it
)

// Error is an exception.
type Error struct {
	Kind    Kind
	Message string       // as the envelope carries it
	Cause   string       // the bare error, "" where the message is that
	Report  *wire.Report // of a run that failed
	Deleted []string     // what a deletion that failed deleted all the same
}

func (e *Error) Error() string {
	if e.Cause != "" {
		return e.Cause
	}
	return e.Message
}

// KindOf is the kind of an error, whatever it is.
func KindOf(err error) Kind {
	var (
		own     *Error
		refused *agent.RefusedError
		busy    *agent.BusyError
		unknown *agent.UnknownSnapshotError
	)
	switch {
	case errors.As(err, &own):
		return own.Kind
	case errors.As(err, &refused):
		return KindRefused
	case errors.As(err, &busy):
		return KindBusy
	case errors.As(err, &unknown):
		return KindNotFound
	case errors.Is(err, agent.ErrCancelled):
		return KindCancelled
	}
	return KindFailed
}

// outcomeKinds are the exceptions as which unsuccessful runs are answered.
var outcomeKinds = map[agent.Outcome]Kind{
	agent.OutcomeFailed:     KindFailed,
	agent.OutcomeNotResumed: KindNotResumed,
	agent.OutcomeCancelled:  KindCancelled,
	agent.OutcomeRefused:    KindRefused,
}
