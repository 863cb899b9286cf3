package api

import (
	"context"
	"errors"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
)

// request reads the one optional argument of take_snapshot.
func request(c Call) (agent.Request, error) {
	r := agent.Request{}
	if len(c.list) > 0 {
		var err error
		if r, err = wire.ParseRequest(c.list[0]); err != nil {
			return r, invalid(c, "Extracting method arguments from payload: %v", err)
		}
	}
	r.By = c.by()
	return r, nil
}

func (h *Handler) takeSnapshot(ctx context.Context, c Call) (any, error) {
	r, err := request(c)
	if err != nil {
		return nil, err
	}
	if r.Lease != 0 {
		return nil, &agent.RefusedError{Field: "lease_seconds", Err: errors.New("a lease is a hold's (quiesce)")}
	}
	run, err := h.Agent.Take(ctx, r)
	if err != nil {
		return nil, err
	}
	return running(run.ID()), nil
}

func (h *Handler) planSnapshot(ctx context.Context, c Call) (any, error) {
	r, err := request(c)
	if err != nil {
		return nil, err
	}
	plan, err := h.Agent.Plan(ctx, r)
	if err != nil {
		return nil, err
	}
	return wire.FromPlan(*plan), nil
}

// selection reads the one optional argument of snapshots and delete_snapshots.
func selection(c Call) (agent.Selection, error) {
	if len(c.list) == 0 {
		return agent.Selection{}, nil
	}
	s, err := wire.ParseSelection(c.list[0])
	if err != nil {
		return s, invalid(c, "Extracting method arguments from payload: %v", err)
	}
	return s, s.Check()
}

func (h *Handler) snapshots(_ context.Context, c Call) (any, error) {
	which, err := selection(c)
	if err != nil {
		return nil, err
	}
	all, err := h.Agent.Select(which)
	if err != nil {
		return nil, err
	}
	return h.list(all), nil
}

// maxRuns bounds the answer to runs.
const maxRuns = 200

func (h *Handler) runs(context.Context, Call) (any, error) {
	all, err := h.Agent.Reports(maxRuns)
	if err != nil {
		return nil, err
	}
	list := make([]wire.Report, 0, len(all))
	for _, r := range all {
		list = append(list, wire.FromReport(r))
	}
	return list, nil
}

// Deleted is the value of a finished delete_snapshot or delete_snapshots.
type Deleted struct {
	CIDs []string `json:"deleted"`
	Gone []string `json:"gone,omitempty"` // those of them that were not there any more, as the CPI says
	Held []string `json:"held,omitempty"` // what was left: the director's database owns it
}

func fromDeleted(d agent.Deleted) Deleted {
	if d.CIDs == nil {
		d.CIDs = []string{}
	}
	return Deleted(d)
}

func (h *Handler) deleteSnapshot(_ context.Context, c Call) (any, error) {
	cid, err := text(c)
	if err != nil {
		return nil, err
	}
	return h.tasks.begin(func(ctx context.Context) (any, error) {
		deleted, err := h.Agent.Delete(ctx, cid)
		return fromDeleted(deleted), err
	}), nil
}

func (h *Handler) deleteSnapshots(_ context.Context, c Call) (any, error) {
	which, err := selection(c)
	if err != nil {
		return nil, err
	}
	return h.tasks.begin(func(ctx context.Context) (any, error) {
		deleted, err := h.Agent.DeleteAll(ctx, which)
		return fromDeleted(deleted), err
	}), nil
}
