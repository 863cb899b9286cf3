package jobs

import (
	"context"
	"errors"
)

// None is the Supervisor of a machine that has none, and so has no services.
type None struct{}

func (None) String() string { return "no supervisor" }

// Services lists none.
func (None) Services(context.Context) ([]Service, error) { return nil, nil }

// Unmonitor knows no service.
func (None) Unmonitor(_ context.Context, names []string) error { return unknown("unmonitor", names) }

// Monitor knows no service.
func (None) Monitor(_ context.Context, names []string) error { return unknown("monitor", names) }

// Stop knows no service.
func (None) Stop(_ context.Context, services []Service, _ func(string, State)) error {
	var names []string
	for _, s := range services {
		names = append(names, s.Name)
	}
	return unknown("stop", names)
}

// Start knows no service.
func (None) Start(_ context.Context, names []string, _ func(string, State)) error {
	return unknown("start", names)
}

func unknown(op string, names []string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, &ServiceError{Op: op, Service: name, Err: ErrNoService})
	}
	return errors.Join(errs...)
}
