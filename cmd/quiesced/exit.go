package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
)

// Exit codes, documented in docs/configuration.md.
const (
	exitOK          = 0
	exitFailed      = 1 // it was tried and failed; everything was set going again
	exitUsage       = 2 // the command line or the configuration is wrong
	exitRefused     = 3 // not as things are; nothing was touched
	exitNotResumed  = 4 // it failed and something is still held
	exitBusy        = 5 // other work holds the VM
	exitUnreachable = 6 // no daemon answers
)

// exitCodes maps kinds of error to exit codes; others are exitFailed.
var exitCodes = map[api.Kind]int{
	api.KindInvalid:       exitUsage,
	api.KindUnknownMethod: exitUsage,
	api.KindRefused:       exitRefused,
	api.KindNotFound:      exitRefused,
	api.KindForbidden:     exitRefused,
	api.KindBusy:          exitBusy,
	api.KindNotResumed:    exitNotResumed,
	api.KindUnreachable:   exitUnreachable,
}

// usageError is a command line or a configuration that is wrong.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// quietError is on stderr alone: its verb prints what was asked for, or nothing.
type quietError struct{ error }

func (e quietError) Unwrap() error { return e.error }

// outcomeError ends a verb whose output has told of the failure already.
type outcomeError struct{ outcome agent.Outcome }

func (e outcomeError) Error() string { return string(e.outcome) }

var outcomeCodes = map[agent.Outcome]int{
	agent.OutcomeFailed:     exitFailed,
	agent.OutcomeCancelled:  exitFailed,
	agent.OutcomeNotResumed: exitNotResumed,
	agent.OutcomeRefused:    exitRefused,
}

// exitCode prints the error that ended a verb, once, and is its exit code. With
// --json it is on stdout too, as the API's exception, unless it is quiet.
func exitCode(err error, json bool, stdout, stderr io.Writer) int {
	var ended outcomeError
	if errors.As(err, &ended) {
		return outcomeCodes[ended.outcome]
	}
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintf(stderr, "quiesced: %v\n", err)
	if json && !errors.As(err, new(quietError)) {
		_, _ = fmt.Fprintf(stdout, "%s\n", api.Encode(nil, err))
	}
	if errors.As(err, new(usageError)) {
		return exitUsage
	}
	if code, ok := exitCodes[api.KindOf(err)]; ok {
		return code
	}
	return exitFailed
}
