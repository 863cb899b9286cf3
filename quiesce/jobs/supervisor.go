package jobs

import (
	"context"
	"errors"
	"fmt"

	"github.com/quiesced/quiesced/quiesce/jobs/processes"
)

// State is how a service is, by its supervisor's word.
type State string

// The states of a service.
const (
	Running     State = "running"
	Stopped     State = "stopped"     // and its supervisor does not want it to run
	Failing     State = "failing"     // its supervisor wants it to run, and it does not
	Changing    State = "changing"    // its supervisor is starting, stopping or checking it
	Unmonitored State = "unmonitored" // its supervisor does not look after it, and cannot tell
)

// Process is one process, distinct from all others of this boot.
type Process = processes.Process

// Service is what a supervisor keeps running.
type Service struct {
	Name      string
	State     State
	Monitored bool      // its supervisor starts it again when it ends
	Processes []Process // of a running one, as far as the supervisor tells, children included
	Detail    string    // the supervisor's own words about it
}

// Supervisor runs services. Each call may be made again after it failed, or after
// another process made it: what is as asked for already is left alone. told, which
// may be nil, hears of each service whose state has changed, from one goroutine at
// a time. A supervisor that does not answer, or is restarted meanwhile, is tried
// again until ctx ends; the error then is ErrUnreachable. Errors about services are
// joined *ServiceErrors, one for each, and the others were gone on with.
type Supervisor interface {
	// String names the supervisor in messages: monit at 127.0.0.1:2822.
	String() string

	// Services lists those that this instance's jobs have, sorted by name. None is
	// no error. It answers at once with ErrUnreachable if the supervisor does not.
	Services(ctx context.Context) ([]Service, error)

	// Unmonitor has the supervisor start none of them again when it ends.
	Unmonitor(ctx context.Context, names []string) error

	// Monitor undoes Unmonitor.
	Monitor(ctx context.Context, names []string) error

	// Stop returns when the supervisor says that each is stopped and its processes,
	// those listed too, have ended, or when ctx ends.
	Stop(ctx context.Context, services []Service, told func(name string, s State)) error

	// Start returns when the supervisor says that each is running, or when ctx ends.
	// What the supervisor has given up is an error before that.
	Start(ctx context.Context, names []string, told func(name string, s State)) error
}

// Causes of a ServiceError and of a supervisor's failure.
var (
	ErrUnreachable = errors.New("the supervisor does not answer")
	ErrNoService   = errors.New("the supervisor has no such service")
	ErrMasked      = errors.New("it is masked")
	ErrNotStopped  = errors.New("it has not stopped")
	ErrNotRunning  = errors.New("it is not running")
)

// ServiceError says what could not be done with one service.
type ServiceError struct {
	Op      string // stop, start, monitor, unmonitor
	Service string
	Err     error // one of the causes above, with what the supervisor says
}

func (e *ServiceError) Error() string { return fmt.Sprintf("cannot %s %q: %v", e.Op, e.Service, e.Err) }

func (e *ServiceError) Unwrap() error { return e.Err }
