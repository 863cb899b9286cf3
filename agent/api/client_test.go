package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
)

// caller answers calls from a script, the last of it for ever.
type caller struct {
	answers []answer
	calls   int
}

type answer struct {
	value string
	err   error
}

func (c *caller) Call(context.Context, string, ...any) (json.RawMessage, error) {
	a := c.answers[min(c.calls, len(c.answers)-1)]
	c.calls++
	return json.RawMessage(a.value), a.err
}

var (
	stillRunning = answer{value: `{"agent_task_id":"run-1","state":"running"}`}
	succeeded    = answer{value: `{"id":"run-1","outcome":"succeeded"}`}
	lost         = answer{err: &api.Error{Kind: api.KindUnreachable, Message: "nobody"}}
	failed       = answer{err: &api.Error{Kind: api.KindFailed, Message: "no quota left"}}
)

func TestReportAsksForATaskAsADirectorDoes(t *testing.T) {
	for _, test := range []struct {
		name    string
		answers []answer
		calls   int
		took    time.Duration
		kind    api.Kind // of the error; a report when empty
	}{
		{"the run has ended", []answer{succeeded}, 1, 0, ""},
		{"the run has failed", []answer{failed}, 1, 0, api.KindFailed},
		{"answers that did not wait are asked for each second", []answer{stillRunning, stillRunning, succeeded}, 3, 2 * time.Second, ""},
		{"a daemon that starts again", []answer{stillRunning, lost, lost, stillRunning, lost, succeeded}, 6, 5 * time.Second, ""},
		{"a daemon that is gone", []answer{stillRunning, lost}, 6, 5 * time.Second, api.KindUnreachable},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, began := &caller{answers: test.answers}, time.Now()
				report, err := api.Client{Caller: c}.Report(t.Context(), "run-1")
				if c.calls != test.calls || time.Since(began) != test.took {
					t.Errorf("%d calls in %s, want %d in %s", c.calls, time.Since(began), test.calls, test.took)
				}
				if test.kind != "" {
					fails(t, err, test.kind, "")
				} else if err != nil || report.Outcome != "succeeded" {
					t.Errorf("the report is %+v, %v", report, err)
				}
			})
		})
	}
}

func TestReportEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 1500*time.Millisecond, errors.New("enough"))
		defer cancel()
		_, err := api.Client{Caller: &caller{answers: []answer{stillRunning}}}.Report(ctx, "run-1")
		if err == nil || err.Error() != "enough" {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestAnswersThatMakeNoSense(t *testing.T) {
	for _, doc := range []string{"", "null", "{}", "[]", `{"value":`, `{"exception":5}`, `{"value":null}`} {
		if value, err := api.Decode([]byte(doc)); err == nil && string(value) != "null" {
			t.Errorf("%q is read as %s", doc, value)
		}
	}
	c := api.Client{Caller: &caller{answers: []answer{{value: `"pong"`}}}}
	if _, err := c.Info(t.Context()); err == nil {
		t.Error("a string is taken for info")
	}
	if _, err := c.Delete(t.Context(), "snap-1"); err == nil {
		t.Error("a string is taken for a task")
	}
	c = api.Client{Caller: &caller{answers: []answer{{value: `{}`}}}}
	if _, err := c.Delete(t.Context(), "snap-1"); err == nil || err.Error() != "cannot read the answer to delete_snapshot: it names no task" {
		t.Errorf("the error is %v", err)
	}
}

func TestAValueThatCannotBeEncodedIsAnException(t *testing.T) {
	_, err := api.Decode(api.Encode(func() {}, nil))
	fails(t, err, api.KindFailed, "cannot encode the answer: ")
}

func TestQuiesceAsksAgainForAHoldThatADaemonForgot(t *testing.T) {
	begun := answer{value: `{"agent_task_id":"hold-1","state":"running"}`}
	forgotten := answer{err: &api.Error{Message: "Action Failed get_task: Task with id hold-1 could not be found"}}
	atRest := answer{value: `{"id":"hold-1","level_reached":"freeze"}`}
	for _, test := range []struct {
		name    string
		answers []answer
		calls   int
		fails   bool
	}{
		{"it is at rest at once", []answer{atRest}, 1, false},
		{"it is asked for until it is at rest", []answer{begun, begun, atRest}, 3, false},
		{"it waited in a daemon that has ended", []answer{begun, forgotten, begun, atRest}, 4, false},
		{"nobody remembers it", []answer{begun, forgotten}, 3, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &caller{answers: test.answers}
				lease, err := api.Client{Caller: c}.Quiesce(t.Context(), agent.Request{ID: "hold-1", Lease: time.Second})
				if c.calls != test.calls || (err != nil) != test.fails || !test.fails && lease.Level != "freeze" {
					t.Errorf("%d calls, want %d; %+v, %v", c.calls, test.calls, lease, err)
				}
			})
		})
	}
}
