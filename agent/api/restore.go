package api

import (
	"context"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
)

// restoreRequest reads the argument of restore_snapshot.
func restoreRequest(c Call) (agent.RestoreRequest, error) {
	r, err := wire.ParseRestoreRequest(c.list[0])
	if err != nil {
		return r, invalid(c, "Extracting method arguments from payload: %v", err)
	}
	r.By = c.by()
	return r, nil
}

// restoreSnapshot begins a restore, which is a run: get_task tells its end, with its
// report, and cancel_task cancels it.
func (h *Handler) restoreSnapshot(ctx context.Context, c Call) (any, error) {
	r, err := restoreRequest(c)
	if err != nil {
		return nil, err
	}
	run, err := h.Agent.Restore(ctx, r)
	if err != nil {
		return nil, err
	}
	return running(run.ID()), nil
}

func (h *Handler) planRestore(ctx context.Context, c Call) (any, error) {
	r, err := restoreRequest(c)
	if err != nil {
		return nil, err
	}
	plan, err := h.Agent.PlanRestore(ctx, r)
	if err != nil {
		return nil, err
	}
	return wire.FromRestorePlan(*plan), nil
}
