package monit

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/jobs/processes"
)

// Services lists the process services of the group.
func (c *Client) Services(ctx context.Context) ([]jobs.Service, error) {
	s, err := c.status(ctx)
	if err != nil {
		return nil, err
	}
	entries := s.of(c.config.Group)
	table := processes.Read()
	c.remember(ctx, table, entries)
	var found []jobs.Service
	for name, e := range entries {
		running := table.Tree(c.known(name)...)
		found = append(found, jobs.Service{
			Name:      name,
			State:     e.state(len(running) > 0),
			Monitored: e.Monitor != 0,
			Processes: running,
			Detail:    e.String(),
		})
	}
	slices.SortFunc(found, func(a, b jobs.Service) int { return cmp.Compare(a.Name, b.Name) })
	return found, nil
}

// Unmonitor has monit look after none of them.
func (c *Client) Unmonitor(ctx context.Context, names []string) error {
	return c.run(ctx, &call{action: "unmonitor", judge: judgeUnmonitor}, names)
}

// Monitor has monit look after them again, which starts those that do not run.
func (c *Client) Monitor(ctx context.Context, names []string) error {
	return c.run(ctx, &call{action: "monitor", judge: judgeMonitor}, names)
}

// Stop waits for the processes that are listed, those that monit has shown to this client,
// and their children. A service that monit no longer knows counts as stopped if
// processes were listed and all of them have ended.
func (c *Client) Stop(ctx context.Context, services []jobs.Service, told func(name string, s jobs.State)) error {
	listed := map[string][]jobs.Process{}
	for _, s := range services {
		listed[s.Name] = append(listed[s.Name], s.Processes...)
	}
	k := &call{action: "stop", judge: judgeStop, cause: jobs.ErrNotStopped, end: jobs.Stopped, told: told, listed: listed}
	return c.run(ctx, k, slices.Collect(maps.Keys(listed)))
}

// Start gives up before ctx ends on a service that monit has given up, or that
// somebody else has stopped meanwhile.
func (c *Client) Start(ctx context.Context, names []string, told func(name string, s jobs.State)) error {
	k := &call{action: "start", judge: judgeStart, cause: jobs.ErrNotRunning, end: jobs.Running, told: told}
	return c.run(ctx, k, names)
}

// remember notes the processes of services: those whose pid monit shows, and of those
// that it does not monitor the ones that were known, or else that of the pid file.
func (c *Client) remember(ctx context.Context, table processes.Table, entries map[string]entry) {
	for name, e := range entries {
		known := table.Tree(c.known(name)...)
		p, ok := table.Find(e.PID)
		if !ok && e.Monitor == 0 && e.Pending == 0 && len(known) == 0 {
			p, ok = c.fromPIDFile(ctx, name)
		}
		if ok {
			known = table.Tree(append(known, p)...)
		}
		c.mu.Lock()
		c.seen[name] = known
		c.mu.Unlock()
	}
}

func (c *Client) known(name string) []jobs.Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.seen[name])
}

// verdict is what is to be done about one service.
type verdict int

const (
	wait    verdict = iota // for monit, or for processes to end
	ask                    // monit for the action
	adopt                  // it: monit has to look after it first
	reached                // what was asked for
	unknown                // monit has no such service
	givenUp                // by monit, or somebody else was here
)

// again is how long nothing may come of an action before it is asked for again.
const again = time.Second

// asksAgain says that the action may be asked for, for the first time or again.
func (t *task) asksAgain() verdict {
	if !t.asked || time.Since(t.askedAt) > again {
		return ask
	}
	return wait
}

func judgeUnmonitor(_ *task, e entry) verdict {
	if e.Monitor == 0 {
		return reached
	}
	return ask
}

func judgeMonitor(_ *task, e entry) verdict {
	if e.Monitor != 0 {
		return reached
	}
	return ask
}

// judgeStop asks at least once: a service that is not monitored may run. It
// does not ask again while processes go on, for some take a second SIGTERM as
// an order to hurry.
func judgeStop(t *task, e entry) verdict {
	switch {
	case e.Monitor != 0, !t.asked:
		return t.asksAgain()
	case t.ignored && e.Status == 0 && len(t.running) > 0:
		return adopt
	case len(t.running) > 0:
		return wait
	case e.Status != 0: // it had failed to stop, and has stopped since: monit has to look again
		return t.asksAgain()
	default:
		return reached
	}
}

func judgeStart(t *task, e entry) verdict {
	_, runs := processes.Find(e.PID)
	switch {
	case e.Monitor == 0 && t.asked && time.Since(t.askedAt) > again:
		return givenUp
	case e.Monitor == 1 && e.Status == 0 && runs:
		return reached
	case t.asked && (e.Monitor == 2 || e.Monitor == 1 && e.Status != 0):
		return wait // it looks at it soon, or tries again; asked again, it would begin anew
	default:
		return t.asksAgain()
	}
}
