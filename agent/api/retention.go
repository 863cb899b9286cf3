package api

import (
	"context"

	"github.com/quiesced/quiesced/agent/wire"
)

// applyRetention answers a dry run at once, and begins long work else.
func (h *Handler) applyRetention(_ context.Context, c Call) (any, error) {
	var asked wire.RetentionRequest
	if len(c.list) > 0 {
		var err error
		if asked, err = wire.ParseRetentionRequest(c.list[0]); err != nil {
			return nil, invalid(c, "Extracting method arguments from payload: %v", err)
		}
	}
	if asked.DryRun {
		r, err := h.Agent.PlanRetention()
		return wire.FromRetention(r, h.Agent.Settings.Instance), err
	}
	return h.tasks.begin(func(ctx context.Context) (any, error) {
		r, err := h.Agent.ApplyRetention(ctx)
		return wire.FromRetention(r, h.Agent.Settings.Instance), err
	}), nil
}

// PlanRetention says what would become of each snapshot now.
func (c Client) PlanRetention(ctx context.Context) (wire.Retention, error) {
	return get[wire.Retention](ctx, c, "apply_retention", wire.RetentionRequest{DryRun: true})
}

// ApplyRetention has deleted what the policies do not keep, and waits until that has ended.
func (c Client) ApplyRetention(ctx context.Context) (wire.Retention, error) {
	id, err := c.begin(ctx, "apply_retention")
	if err != nil {
		return wire.Retention{}, err
	}
	return await[wire.Retention](ctx, c, id)
}
