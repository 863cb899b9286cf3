package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
)

// TaskWait is how long get_task waits for a task to end before it answers that
// it is still running. A director waits 45 s for any answer.
const TaskWait = 30 * time.Second

// keptTasks bounds the ended tasks that are remembered.
const keptTasks = 64

// Task is the answer to long work that has not ended.
type Task struct {
	ID    string `json:"agent_task_id"`
	State string `json:"state"`
}

func running(id string) Task { return Task{ID: id, State: "running"} }

// task is long work that is no run: runs are the agent's own to remember.
type task struct {
	done  chan struct{}
	value any // value and err are set before done is closed
	err   error

	cancel context.CancelCauseFunc // nil for work that cannot be cancelled
}

// tasks are the tasks of this daemon's life.
type tasks struct {
	mu    sync.Mutex
	known map[string]*task // guarded by mu
	order []string         // guarded by mu: oldest first
}

// begin starts long work. It ends by itself: its budget is the work's own.
func (t *tasks) begin(work func(context.Context) (any, error)) Task {
	return t.add(context.Background(), &task{done: make(chan struct{})}, work)
}

// beginCancellable starts long work that cancel_task ends.
func (t *tasks) beginCancellable(work func(context.Context) (any, error)) Task {
	ctx, cancel := context.WithCancelCause(context.Background())
	return t.add(ctx, &task{done: make(chan struct{}), cancel: cancel}, work)
}

func (t *tasks) add(ctx context.Context, one *task, work func(context.Context) (any, error)) Task {
	id := agent.NewID()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil {
		t.known = map[string]*task{}
	}
	t.known[id] = one
	t.order = append(t.order, id)
	t.forget()
	go func() {
		defer close(one.done)
		one.value, one.err = work(ctx)
	}()
	return running(id)
}

// forget drops the oldest tasks that have ended. It needs mu held.
func (t *tasks) forget() {
	for len(t.order) > keptTasks {
		if !closed(t.known[t.order[0]].done) {
			return
		}
		delete(t.known, t.order[0])
		t.order = t.order[1:]
	}
}

func (t *tasks) find(id string) *task {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known[id]
}

func (h *Handler) getTask(ctx context.Context, c Call) (any, error) {
	id, err := text(c)
	if err != nil {
		return nil, err
	}
	if t := h.task(c, id); t != nil {
		if !h.ended(ctx, t.done) {
			return running(id), nil
		}
		return t.value, taskResult(c, id, t)
	}
	run, err := h.find(c, id)
	if err != nil {
		return nil, err
	}
	if run.AtRest() != nil {
		return h.held(ctx, c, run)
	}
	if !h.ended(ctx, run.Done()) {
		return running(id), nil
	}
	return h.report(c, run)
}

// ended waits for a task's end, for the time that get_task may take.
func (h *Handler) ended(ctx context.Context, done <-chan struct{}) bool {
	limit := time.NewTimer(cmp.Or(h.Wait, TaskWait))
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
	case <-ctx.Done():
	}
	return closed(done)
}

func closed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// task is the task that is no run, nil if there is none. Those are operators' alone.
func (h *Handler) task(c Call, id string) *task {
	if c.Role != RoleOperator {
		return nil
	}
	return h.tasks.find(id)
}

// find is the run that the caller may follow and end.
func (h *Handler) find(c Call, id string) (*agent.Run, error) {
	run, err := h.Agent.Find(id)
	if err != nil {
		return nil, unknownTask(c, id, err)
	}
	return run, c.mine(run)
}

// unknownTask puts an id that nobody knows into bosh-agent's words.
func unknownTask(c Call, id string, err error) error {
	if errors.Is(err, agent.ErrUnknownTask) {
		return invalid(c, "Task with id %s could not be found", id)
	}
	return err
}

// report is the end of a run: a value if it did what was asked, an exception
// with the report in it if not.
func (h *Handler) report(c Call, run *agent.Run) (any, error) {
	report, _ := run.Report()
	w := wire.FromReport(report)
	w.Metrics = h.Samples(report)
	kind, failed := outcomeKinds[report.Outcome]
	if !failed {
		return w, nil
	}
	return nil, &Error{Kind: kind, Message: taskMessage(c, run.ID(), report.Error), Cause: report.Error, Report: &w}
}

func taskResult(c Call, id string, t *task) error {
	if t.err == nil {
		return nil
	}
	x := &Error{Kind: KindOf(t.err), Message: taskMessage(c, id, t.err.Error()), Cause: t.err.Error()}
	if d, ok := t.value.(Deleted); ok {
		x.Deleted = d.CIDs
	}
	return x
}

func taskMessage(c Call, id, result string) string {
	return fmt.Sprintf("Action Failed %s: Task %s result: %s", c.name(), id, result)
}

// cancelTask cancels a run, or work that can be, and answers when it holds nothing any more.
func (h *Handler) cancelTask(ctx context.Context, c Call) (any, error) {
	id, err := text(c)
	if err != nil {
		return nil, err
	}
	if t := h.task(c, id); t != nil {
		return h.cancelWork(ctx, c, t)
	}
	run, err := h.find(c, id)
	if err != nil {
		return nil, err
	}
	run.Cancel()
	if !h.ended(ctx, run.Resumed()) {
		return nil, errors.New("the run was told to end and has not set everything going again yet")
	}
	if err := run.ResumeError(); err != nil {
		return nil, &Error{Kind: KindNotResumed, Message: "Action Failed " + c.name() + ": " + err.Error(), Cause: err.Error()}
	}
	return "canceled", nil
}
