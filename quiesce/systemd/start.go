package systemd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// settle is for how long a unit that does not tell when it is ready must have
// run, and the pause between two looks at one that systemd tries again.
const settle = 200 * time.Millisecond

// start starts a unit that does not run, and goes on while systemd tries again.
func (l *link) start(ctx context.Context, t *task) error {
	u, err := l.look(ctx, t.name)
	if err != nil {
		return err
	}
	if u.state() == jobs.Running && !u.hasJob() {
		return nil
	}
	if u.isDown() {
		l.forgive(ctx, t.name)
	}
	t.state = u.state()
	for {
		result, err := l.job(ctx, t, func(ctx context.Context, c *conn, results chan<- string) error {
			_, err := c.StartUnitContext(ctx, t.name, startMode(t.name), results)
			return err
		})
		if err != nil {
			return jobError(err, jobs.ErrNotRunning)
		}
		u, lasts, err := l.settled(ctx, t.name)
		switch {
		case err != nil:
			return err
		case lasts && u.state() == jobs.Running, result == "done" && u.hasRun():
			l.tell(t, u.state())
			return nil
		case u.isDown(), result == "canceled", ctx.Err() != nil:
			l.tell(t, downState(u))
			return fmt.Errorf("%w: systemd's job to start it ended as %s: %s", jobs.ErrNotRunning, result, u.detail())
		}
		l.tell(t, jobs.Failing)
	}
}

// downState is the state of a unit that could not be started. One that is active
// just now has not lasted.
func downState(u unit) jobs.State {
	if u.state() == jobs.Running {
		return jobs.Failing
	}
	return u.state()
}

// startMode is how a unit is started. A target must not bring up what it wants
// and was down before.
func startMode(name string) string {
	if strings.HasSuffix(name, ".target") {
		return "ignore-requirements"
	}
	return "replace"
}

// forgive has systemd forget that a unit failed, and how often it was started
// lately: runs in quick succession are no reason to give it up.
func (l *link) forgive(ctx context.Context, name string) {
	_ = l.persist(ctx, func(c *conn) error {
		return c.ask(ctx, func(ctx context.Context) error { return c.ResetFailedUnitContext(ctx, name) })
	})
}

// settled looks at a unit whose start job has ended, and again a moment later if
// it does not tell when it is ready. It says whether the unit was active all the time.
func (l *link) settled(ctx context.Context, name string) (u unit, lasts bool, err error) {
	u, err = l.look(ctx, name)
	if err != nil || u.isDown() || u.state() == jobs.Running && u.tellsWhenReady() {
		return u, true, err
	}
	select {
	case <-ctx.Done():
		return u, false, nil
	case <-time.After(settle):
	}
	later, err := l.look(ctx, name)
	return later, later["ActiveEnterTimestampMonotonic"] == u["ActiveEnterTimestampMonotonic"], err
}
