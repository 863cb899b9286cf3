package systemd

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// retryPause is between two tries to reach systemd.
const retryPause = 50 * time.Millisecond

// link is a connection that is made anew when it breaks. All that is asked over
// it may be asked again: a job that is there already is joined, not doubled.
type link struct {
	s    *Supervisor
	told func(string, jobs.State)

	telling sync.Mutex // held while told is called
	mu      sync.Mutex // guards conn
	conn    *conn      // nil before the first
}

func (s *Supervisor) link(told func(string, jobs.State)) *link {
	if told == nil {
		told = func(string, jobs.State) {}
	}
	return &link{s: s, told: told}
}

// tell tells of a state that a unit was not in before. One that fails is failing
// until that is over, however often systemd tries again meanwhile.
func (l *link) tell(t *task, state jobs.State) {
	if t.quiet || t.state == state || t.state == jobs.Failing && state == jobs.Changing {
		return
	}
	t.state = state
	l.telling.Lock()
	defer l.telling.Unlock()
	l.told(t.name, state)
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.conn.close()
	}
}

// get returns a connection that has not been lost yet.
func (l *link) get(ctx context.Context) (*conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		if l.conn.lost.Err() == nil {
			return l.conn, nil
		}
		l.conn.close()
		l.conn = nil
	}
	var err error
	l.conn, err = l.s.connect(ctx)
	return l.conn, err
}

// persist does something until systemd could be reached for it or ctx ends.
func (l *link) persist(ctx context.Context, do func(*conn) error) error {
	for {
		c, err := l.get(ctx)
		if err == nil {
			err = do(c)
		}
		if !errors.Is(err, jobs.ErrUnreachable) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryPause):
		}
	}
}

func (l *link) look(ctx context.Context, name string) (unit, error) {
	var u unit
	err := l.persist(ctx, func(c *conn) error {
		var err error
		u, err = c.unit(ctx, name)
		return err
	})
	return u, err
}

// job has systemd do a job about a unit, and returns its result: done, failed,
// canceled, … When ctx ends systemd goes on with it.
func (l *link) job(ctx context.Context, t *task, call queuing) (string, error) {
	var result string
	err := l.persist(ctx, func(c *conn) error {
		results, err := c.queue(ctx, call)
		if err != nil {
			return err
		}
		l.tell(t, jobs.Changing)
		result, err = c.wait(ctx, results)
		return err
	})
	return result, err
}
