package monit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/jobs/processes"
)

// call is one call of a Supervisor's method. It goes in rounds: monit's status is
// looked at, what has to be asked for is asked for, and is waited for.
type call struct {
	action string // as monit names it, and ServiceError.Op
	judge  func(*task, entry) verdict
	cause  error      // of those that are not there when ctx ends; nil: that of ctx
	end    jobs.State // of those that are; "" if nobody is told
	told   func(name string, s jobs.State)
	listed map[string][]jobs.Process // to be waited for besides what monit shows

	client      *Client
	watch       *processes.Watch
	tasks       []*task
	incarnation string // of the monit that was asked
	lost        error  // why monit did not answer last
	answered    bool   // it has, once
	pause       time.Duration
}

// task is one service of a call.
type task struct {
	name    string
	running []jobs.Process // that are to end, and have not
	waited  bool           // for processes, all of which have ended if none is running
	entry   entry          // as monit showed it last
	asked   bool           // this monit has been
	ignored bool           // it was asked while it did not monitor the service
	askedAt time.Time
	wakeUps int        // of monit, for this one
	said    jobs.State // what was told last, or was so at first
	done    bool
	err     error
}

// Pauses between looking at the status: it is asked for often while monit alone is
// waited for, and rarely while processes go on, whose ends are seen by themselves.
const (
	shortPause = 10 * time.Millisecond
	longPause  = 100 * time.Millisecond
	rarePause  = 500 * time.Millisecond
)

func (c *Client) run(ctx context.Context, k *call, names []string) error {
	watch, err := processes.NewWatch()
	if err != nil {
		return err
	}
	defer func() { _ = watch.Close() }()
	k.client, k.watch, k.pause = c, watch, shortPause
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		k.tasks = append(k.tasks, &task{name: name})
	}
	for len(k.open()) > 0 {
		if err := k.round(ctx); err != nil {
			return err
		}
		if len(k.open()) > 0 && k.wait(ctx) != nil {
			return k.late(ctx)
		}
	}
	return k.errors()
}

func (k *call) open() []*task {
	var open []*task
	for _, t := range k.tasks {
		if !t.done {
			open = append(open, t)
		}
	}
	return open
}

// round looks at all once, and asks monit for what is missing. That it does not answer
// is no error.
func (k *call) round(ctx context.Context) error {
	s, err := k.client.status(ctx)
	if err != nil {
		k.lose(ctx, err)
		return nil
	}
	if s.Incarnation != k.incarnation {
		k.forget()
	}
	k.incarnation, k.lost, k.answered = s.Incarnation, nil, true
	entries := s.of(k.client.config.Group)
	if err := k.follow(ctx, entries); err != nil {
		return err
	}
	for action, tasks := range k.look(ctx, entries) {
		k.ask(ctx, action, tasks)
	}
	k.wakeMonit(ctx)
	return nil
}

// lose notes that monit does not answer: it may be another one that does next.
func (k *call) lose(ctx context.Context, err error) {
	if ctx.Err() == nil {
		k.lost = err
		k.forget()
	}
}

// forget is for a new monit, which has not been asked for anything.
func (k *call) forget() {
	for _, t := range k.tasks {
		t.asked = false
	}
}

// follow finds the processes that Stop waits for. Children of those that run
// are found anew each time.
func (k *call) follow(ctx context.Context, entries map[string]entry) error {
	if k.action == "monitor" || k.action == "start" {
		return nil
	}
	table := processes.Read()
	k.client.remember(ctx, table, k.among(entries))
	for _, t := range k.open() {
		roots := append(k.client.known(t.name), t.running...)
		if !t.waited {
			roots = append(roots, k.listed[t.name]...)
		}
		t.waited = t.waited || len(roots) > 0
		tree := table.Tree(roots...)
		if err := k.watch.Add(tree...); err != nil {
			return err
		}
		k.keep(t, append(t.running, tree...))
	}
	return nil
}

// keep notes which of a service's processes run. When they come to be fewer, monit is
// soon done.
func (k *call) keep(t *task, all []jobs.Process) {
	before := len(t.running)
	all = slices.DeleteFunc(all, func(p jobs.Process) bool { return !k.watch.Alive(p) })
	slices.SortFunc(all, func(a, b jobs.Process) int { return a.PID - b.PID })
	t.running = slices.Compact(all)
	if len(t.running) < before {
		k.pause = shortPause
	}
}

// among are the entries of the services that are left.
func (k *call) among(entries map[string]entry) map[string]entry {
	left := map[string]entry{}
	for _, t := range k.open() {
		if e, ok := entries[t.name]; ok {
			left[t.name] = e
		}
	}
	return left
}

// look judges each service, tells of it, and lists those that monit is to be asked
// about, by action.
func (k *call) look(ctx context.Context, entries map[string]entry) map[string][]*task {
	asked := map[string][]*task{}
	for _, t := range k.open() {
		e, known := entries[t.name]
		if known {
			t.entry = e
		}
		switch k.verdict(t, known) {
		case ask:
			asked[k.action] = append(asked[k.action], t)
		case adopt:
			if k.runs(ctx, t) {
				asked["monitor"] = append(asked["monitor"], t)
			}
		case reached:
			t.done = true
		case unknown:
			t.done, t.err = true, jobs.ErrNoService
		case givenUp:
			t.done, t.err = true, fmt.Errorf("%w: monit has given it up, or somebody has stopped it: monit says: %s", k.cause, e)
		case wait:
		}
		k.tell(t, known)
	}
	return asked
}

// runs says whether monit will find that a service runs. If it would not, monitor
// starts it.
func (k *call) runs(ctx context.Context, t *task) bool {
	p, ok := k.client.fromPIDFile(ctx, t.name)
	return ok && slices.Contains(t.running, p)
}

func (k *call) verdict(t *task, known bool) verdict {
	switch {
	case !known && t.waited && len(t.running) == 0:
		return reached
	case !known:
		return unknown
	case t.entry.Pending != 0: // it is done, or another is waited out
		t.asked = t.asked || t.entry.pendingAction() == k.action
		return wait
	default:
		return k.judge(t, t.entry)
	}
}

// tell tells of a service whose state has changed. What monit says is the end of it
// only when the processes agree.
func (k *call) tell(t *task, known bool) {
	s := t.entry.state(len(t.running) > 0)
	switch {
	case k.end == "" || t.err != nil && !known:
		return
	case t.said == "": // as it was
		t.said = s
		return
	case t.done && t.err == nil:
		s = k.end
	case s == k.end, s == jobs.Unmonitored:
		s = jobs.Changing
	}
	if s != t.said && k.told != nil {
		k.told(t.name, s)
	}
	t.said = s
}

// ask asks for an action, all in one request.
func (k *call) ask(ctx context.Context, action string, tasks []*task) {
	var names []string
	for _, t := range tasks {
		names = append(names, t.name)
	}
	taken, err := k.client.act(ctx, action, names)
	if err != nil {
		k.lose(ctx, err)
		return
	}
	for _, t := range tasks {
		t.asked, t.askedAt = taken && action == k.action, time.Now()
		t.ignored = t.asked && t.entry.Monitor == 0
	}
	k.pause = shortPause
}

// wait returns when it is time for another round.
func (k *call) wait(ctx context.Context) error {
	pause := k.pause
	if pause > shortPause && k.processesAlone() {
		pause = rarePause
	}
	k.pause = min(k.pause*3/2, longPause)
	for ; k.action == "start" && pause > shortPause; pause -= shortPause {
		if err := k.watch.Wait(ctx, shortPause); err != nil || k.anyStarted() {
			return err
		}
	}
	return k.watch.Wait(ctx, pause)
}

// processesAlone says that every service that is left has processes to wait for.
func (k *call) processesAlone() bool {
	return k.action == "stop" && k.lost == nil && !slices.ContainsFunc(k.open(), func(t *task) bool { return !t.asked || len(t.running) == 0 })
}

// late is the error at the end of ctx.
func (k *call) late(ctx context.Context) error {
	if k.lost != nil || !k.answered {
		lost := k.lost
		if lost == nil {
			lost = k.client.unreachable(context.Cause(ctx))
		}
		return errors.Join(k.errors(), lost)
	}
	cause := k.cause
	if cause == nil {
		cause = context.Cause(ctx)
	}
	for _, t := range k.open() {
		t.err = fmt.Errorf("%w: monit says: %s%s", cause, t.entry, pids(t.running))
	}
	return k.errors()
}

func (k *call) errors() error {
	var errs []error
	for _, t := range k.tasks {
		if t.err != nil {
			errs = append(errs, &jobs.ServiceError{Op: k.action, Service: t.name, Err: t.err})
		}
	}
	return errors.Join(errs...)
}

// pids names the processes that run.
func pids(running []jobs.Process) string {
	if len(running) == 0 {
		return ""
	}
	var out strings.Builder
	out.WriteString("; pid")
	for _, p := range running {
		fmt.Fprintf(&out, " %d", p.PID)
	}
	return out.String() + " runs still"
}
