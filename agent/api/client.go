package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
)

// Caller makes one call over some transport. The error is an *Error when the
// daemon answered with an exception, or did not answer (KindUnreachable).
type Caller interface {
	Call(ctx context.Context, method string, arguments ...any) (json.RawMessage, error)
}

// Client is the agent's methods over a Caller.
type Client struct{ Caller Caller }

// get makes a call and reads its value.
func get[T any](ctx context.Context, c Client, method string, arguments ...any) (T, error) {
	var into T
	value, err := c.Caller.Call(ctx, method, arguments...)
	if err != nil {
		return into, err
	}
	if err := json.Unmarshal(value, &into); err != nil {
		return into, fmt.Errorf("cannot read the answer to %s: %w", method, err)
	}
	return into, nil
}

// Info says who answers.
func (c Client) Info(ctx context.Context) (Info, error) {
	return get[Info](ctx, c, "info")
}

// Status says what the daemon is doing.
func (c Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "status")
}

// Metrics is the exposition text.
func (c Client) Metrics(ctx context.Context) (string, error) {
	return get[string](ctx, c, "metrics")
}

// Take begins a run and returns its id.
func (c Client) Take(ctx context.Context, r agent.Request) (string, error) {
	return c.begin(ctx, "take_snapshot", wire.FromRequest(r))
}

// Plan says what a run would do.
func (c Client) Plan(ctx context.Context, r agent.Request) (wire.Plan, error) {
	return get[wire.Plan](ctx, c, "plan_snapshot", wire.FromRequest(r))
}

// PlanRestore says what a restore would do.
func (c Client) PlanRestore(ctx context.Context, r agent.RestoreRequest) (wire.RestorePlan, error) {
	return get[wire.RestorePlan](ctx, c, "plan_restore", wire.FromRestoreRequest(r))
}

// Restore begins a restore and returns its id. Report waits for its end.
func (c Client) Restore(ctx context.Context, r agent.RestoreRequest) (string, error) {
	return c.begin(ctx, "restore_snapshot", wire.FromRestoreRequest(r))
}

// Snapshots is the catalogue.
func (c Client) Snapshots(ctx context.Context) ([]wire.Snapshot, error) {
	return c.Select(ctx, agent.Selection{})
}

// Select is a part of the catalogue.
func (c Client) Select(ctx context.Context, which agent.Selection) ([]wire.Snapshot, error) {
	return get[[]wire.Snapshot](ctx, c, "snapshots", wire.FromSelection(which))
}

// Runs is the reports of the runs that ended, newest first.
func (c Client) Runs(ctx context.Context) ([]wire.Report, error) {
	return get[[]wire.Report](ctx, c, "runs")
}

// Report waits for a run to end.
func (c Client) Report(ctx context.Context, id string) (wire.Report, error) {
	return await[wire.Report](ctx, c, id)
}

// Cancel cancels a run and returns when it holds nothing any more.
func (c Client) Cancel(ctx context.Context, id string) error {
	_, err := get[string](ctx, c, "cancel_task", id)
	return err
}

// Yield leaves the jobs to the director, and returns when no run holds any.
func (c Client) Yield(ctx context.Context) error {
	_, err := get[string](ctx, c, "yield")
	return err
}

// Unyield takes the jobs back from the director.
func (c Client) Unyield(ctx context.Context) error {
	_, err := get[string](ctx, c, "unyield")
	return err
}

// Delete deletes a snapshot and waits until that has ended.
func (c Client) Delete(ctx context.Context, cid string) (Deleted, error) {
	return c.work(ctx, "delete_snapshot", cid)
}

// DeleteAll deletes the selected snapshots, waits until that has ended, and says which
// it deleted, even where not all could be.
func (c Client) DeleteAll(ctx context.Context, which agent.Selection) (Deleted, error) {
	d, err := c.work(ctx, "delete_snapshots", wire.FromSelection(which))
	if x := (*Error)(nil); errors.As(err, &x) {
		d.CIDs = x.Deleted
	}
	return d, err
}

func (c Client) work(ctx context.Context, method string, arguments ...any) (Deleted, error) {
	id, err := c.begin(ctx, method, arguments...)
	if err != nil {
		return Deleted{}, err
	}
	return await[Deleted](ctx, c, id)
}

// begin begins long work and returns its task's id.
func (c Client) begin(ctx context.Context, method string, arguments ...any) (string, error) {
	t, err := get[Task](ctx, c, method, arguments...)
	if err == nil && t.ID == "" {
		err = fmt.Errorf("cannot read the answer to %s: it names no task", method)
	}
	return t.ID, err
}

const (
	// askEvery is how often a task is asked for, as a director does, where
	// get_task does not wait.
	askEvery = time.Second
	// lostTries is how often it is asked for again when nobody answers: a daemon
	// that is started again goes on with its run.
	lostTries = 4
)

// await waits for a task's end and reads its value.
func await[T any](ctx context.Context, c Client, id string) (T, error) {
	var into T
	value, err := c.end(ctx, id)
	if err != nil {
		return into, err
	}
	if err := json.Unmarshal(value, &into); err != nil {
		return into, fmt.Errorf("cannot read the result of task %s: %w", id, err)
	}
	return into, nil
}

// end asks for a task until it has ended.
func (c Client) end(ctx context.Context, id string) (json.RawMessage, error) {
	for lost := 0; ; {
		next := time.After(askEvery)
		value, err := c.Caller.Call(ctx, "get_task", id)
		switch {
		case err == nil && !isRunning(value, id):
			return value, nil
		case err == nil:
			lost = 0
		case KindOf(err) != KindUnreachable || lost == lostTries:
			return nil, err
		default:
			lost++
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func isRunning(value json.RawMessage, id string) bool {
	var t Task
	return json.Unmarshal(value, &t) == nil && t.State == "running" && t.ID == id
}
