package systemd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// mayStop looks at a unit, and refuses what could not be undone or would end us.
func (l *link) mayStop(ctx context.Context, t *task) error {
	return l.persist(ctx, func(c *conn) error {
		u, err := c.unit(ctx, t.name)
		if err != nil {
			return err
		}
		t.before, t.state, t.quiet = u, u.state(), u.isDown() && !u.hasJob()
		switch {
		case u.missing():
			return fmt.Errorf("%w: %s", jobs.ErrNoService, u.detail())
		case u.masked() && !u.isDown():
			return fmt.Errorf("%w and runs, so it could not be started again", jobs.ErrMasked)
		}
		ours, err := l.s.takesDown(ctx, c, u)
		if err == nil && ours {
			err = fmt.Errorf("%w: systemd would stop this daemon with it", jobs.ErrNotStopped)
		}
		return err
	})
}

// stop stops a unit, and waits for the ends of its processes.
func (l *link) stop(ctx context.Context, t *task) error {
	result, err := l.job(ctx, t, func(ctx context.Context, c *conn, results chan<- string) error {
		_, err := c.StopUnitContext(ctx, t.name, "replace", results)
		return err
	})
	if err != nil {
		return jobError(err, jobs.ErrNotStopped)
	}
	if result != "done" {
		return fmt.Errorf("%w: systemd's job to stop it ended as %s", jobs.ErrNotStopped, result)
	}
	err = l.s.ended(ctx, t.before.text("ControlGroup"), t.listed, func() error { return l.staysDown(ctx, t) })
	if err != nil && !errors.Is(err, jobs.ErrNotStopped) {
		err = fmt.Errorf("%w: %w", jobs.ErrNotStopped, err)
	}
	if err != nil {
		return err
	}
	l.tell(t, jobs.Stopped)
	return nil
}

// lastLook is ctx, or a moment more when that has ended: for a look at what stopped
// in time while something else did not.
func lastLook(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() == nil {
		return ctx, func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), time.Second)
}

// staysDown reports a unit that came up again, and one that had to be killed.
func (l *link) staysDown(ctx context.Context, t *task) error {
	u, err := l.look(ctx, t.name)
	switch {
	case err != nil:
		return err
	case !u.isDown():
		return fmt.Errorf("%w: it came up again: %s", jobs.ErrNotStopped, u.detail())
	case !t.before.isDown() && u.text("Result") == "timeout":
		return fmt.Errorf("%w when it was told to, and systemd killed it: %s", jobs.ErrNotStopped, u.detail())
	}
	return nil
}
