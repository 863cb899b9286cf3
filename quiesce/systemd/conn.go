package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// answerTime is how long systemd may take to answer one call. Jobs it queues.
const answerTime = 5 * time.Second

// conn is a connection to systemd.
type conn struct {
	*dbus.Conn
	lost context.Context // ends when signals may have been missed
	end  context.CancelCauseFunc
}

// connect makes a connection, or fails with ErrUnreachable.
func (s *Supervisor) connect(ctx context.Context) (*conn, error) {
	c := &conn{}
	c.lost, c.end = context.WithCancelCause(context.WithoutCancel(ctx))
	dialing, done := context.WithTimeout(ctx, answerTime)
	defer done()
	stop := context.AfterFunc(dialing, func() { c.end(dialing.Err()) })
	var err error
	c.Conn, err = dbus.NewConnection(func() (*godbus.Conn, error) { return s.dial(c) })
	if err == nil && !stop() {
		c.Close()
		err = context.Cause(c.lost)
	}
	if err != nil {
		c.end(nil)
		return nil, fmt.Errorf("%w: %w", jobs.ErrUnreachable, err)
	}
	return c, nil
}

func (c *conn) close() {
	c.end(nil)
	c.Close()
}

// Where systemd and the bus listen. systemd's own socket, which is for root alone,
// works while the bus is down, so it is tried first, as systemctl does.
const (
	privateSocket = "/run/systemd/private"
	busSocket     = "/run/dbus/system_bus_socket"
)

// dial makes one connection. It ends with c.lost, and c.lost with it.
func (s *Supervisor) dial(c *conn) (*godbus.Conn, error) {
	var failed []error
	for _, socket := range s.sockets {
		bus, err := s.open(c, socket)
		if err == nil && socket == busSocket {
			err = errors.Join(bus.Hello(), watchOwner(bus, c))
		}
		if err == nil {
			context.AfterFunc(bus.Context(), func() { c.end(errors.New("the connection has ended")) })
			return bus, nil
		}
		failed = append(failed, err)
		if bus != nil {
			_ = bus.Close()
		}
	}
	return nil, errors.Join(failed...)
}

func (s *Supervisor) open(c *conn, socket string) (*godbus.Conn, error) {
	bus, err := godbus.Dial("unix:path="+godbus.EscapeBusAddressValue(s.config.Root+socket), godbus.WithContext(c.lost))
	if err != nil {
		return nil, err
	}
	if err := bus.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
		return nil, errors.Join(err, bus.Close())
	}
	return bus, nil
}

// watchOwner ends c when systemd leaves the bus: the results of jobs may be told
// before it is back.
func watchOwner(bus *godbus.Conn, c *conn) error {
	signals := make(chan *godbus.Signal, 16)
	bus.Signal(signals)
	go func() {
		for signal := range signals { // closed with bus
			var name, before string
			if signal.Name == "org.freedesktop.DBus.NameOwnerChanged" &&
				godbus.Store(signal.Body[:2], &name, &before) == nil && before != "" {
				c.end(errors.New("systemd has left the bus"))
			}
		}
	}()
	return bus.AddMatchSignal(godbus.WithMatchInterface("org.freedesktop.DBus"),
		godbus.WithMatchMember("NameOwnerChanged"), godbus.WithMatchArg(0, "org.freedesktop.systemd1"))
}

// ask makes one call. The error is ErrUnreachable when it is not systemd's own.
func (c *conn) ask(ctx context.Context, call func(context.Context) error) error {
	ctx, done := context.WithTimeout(ctx, answerTime)
	defer done()
	err := call(ctx)
	if err == nil || isAnswer(err) {
		return err
	}
	c.end(err) // calls that wait for this one need not wait as long again
	return fmt.Errorf("%w: %w", jobs.ErrUnreachable, err)
}

// isAnswer says whether systemd itself has refused.
func isAnswer(err error) bool {
	var refusal godbus.Error
	if !errors.As(err, &refusal) {
		return false
	}
	return strings.HasPrefix(refusal.Name, "org.freedesktop.systemd1.") || strings.HasPrefix(refusal.Name, "System.Error.") ||
		slices.Contains([]string{"AccessDenied", "InteractiveAuthorizationRequired", "InvalidArgs", "UnknownObject", "NotSupported"},
			strings.TrimPrefix(refusal.Name, "org.freedesktop.DBus.Error."))
}

// unit returns a unit's properties, also those of one that is missing.
func (c *conn) unit(ctx context.Context, name string) (unit, error) {
	var u unit
	err := c.ask(ctx, func(ctx context.Context) error {
		properties, err := c.GetAllPropertiesContext(ctx, name)
		u = properties
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot look at unit %q: %w", name, err)
	}
	return u, nil
}

// queuing asks for a job, whose result goes to a channel.
type queuing func(ctx context.Context, c *conn, results chan<- string) error

// queue queues a job.
func (c *conn) queue(ctx context.Context, call queuing) (<-chan string, error) {
	results := make(chan string, 1)
	return results, c.ask(ctx, func(ctx context.Context) error { return call(ctx, c, results) })
}

// wait waits for a job's result.
func (c *conn) wait(ctx context.Context, results <-chan string) (string, error) {
	select {
	case result := <-results:
		return result, nil
	case <-ctx.Done():
		return "", fmt.Errorf("systemd's job for it has not ended: %w", ctx.Err())
	case <-c.lost.Done():
		return "", fmt.Errorf("%w: %w", jobs.ErrUnreachable, context.Cause(c.lost))
	}
}

// jobError is the cause of a job's failure: what its error says, or otherwise.
func jobError(err, otherwise error) error {
	var refusal godbus.Error
	switch {
	case errors.Is(err, jobs.ErrUnreachable):
		return err
	case errors.As(err, &refusal) && refusal.Name == "org.freedesktop.systemd1.UnitMasked":
		return fmt.Errorf("%w: %w", jobs.ErrMasked, err)
	case errors.As(err, &refusal) && refusal.Name == "org.freedesktop.systemd1.NoSuchUnit":
		return fmt.Errorf("%w: %w", jobs.ErrNoService, err)
	}
	return fmt.Errorf("%w: %w", otherwise, err)
}
