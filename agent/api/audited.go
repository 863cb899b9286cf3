package api

import (
	"cmp"
	"context"
	"encoding/json"

	"github.com/quiesced/quiesced/agent/audit"
)

// Call answers one call. It returns within seconds but for get_task, which
// waits up to TaskWait for the task's end, quiesce, which waits as long for the
// instance to be at rest, and cancel_task, resume and yield, which wait as
// long for what the run holds to be set going.
func (h *Handler) Call(ctx context.Context, c Call) (any, error) {
	value, err := h.call(ctx, c)
	h.told(c, value, err)
	return value, err
}

// Refused is told of a call that a transport answered by itself, with an error.
func (h *Handler) Refused(c Call, err error) { h.told(c, nil, err) }

func (h *Handler) told(c Call, value any, err error) {
	if h.Audit == nil {
		return
	}
	e := audit.Event{Method: c.name(), By: c.by(), From: c.From, ID: requestID(c, value)}
	if err != nil {
		e.Failed = string(cmp.Or(KindOf(err), "invalid"))
	}
	h.Audit(e)
}

// requestID is the id of the run, hold or task that a call is about, "" for none.
func requestID(c Call, value any) string {
	if t, ok := value.(Task); ok {
		return t.ID
	}
	var id string
	var request struct {
		ID string `json:"id"`
	}
	switch c.Method {
	case "get_task", "cancel_task", "renew", "resume":
		_ = json.Unmarshal(first(c), &id) // what is no id has no name
	case "take_snapshot", "plan_snapshot", "quiesce", "restore_snapshot", "plan_restore":
		_ = json.Unmarshal(first(c), &request)
	}
	return cmp.Or(id, request.ID)
}

// first is a call's first argument, nil for none.
func first(c Call) json.RawMessage {
	var list []json.RawMessage
	if json.Unmarshal(c.Arguments, &list) != nil || len(list) == 0 {
		return nil
	}
	return list[0]
}
