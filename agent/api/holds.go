package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
)

// quiesce begins a hold, or joins it, and answers its lease where that begins within
// TaskWait.
func (h *Handler) quiesce(ctx context.Context, c Call) (any, error) {
	r, err := request(c)
	if err != nil {
		return nil, err
	}
	if r.Lease == 0 {
		return nil, &agent.RefusedError{Field: "lease_seconds", Err: errors.New("needed")}
	}
	if r.Level, err = h.holdLevel(c, r.Level); err != nil {
		return nil, err
	}
	run, err := h.Agent.Take(ctx, r)
	if unknown := (*agent.NotAttachedError)(nil); errors.As(err, &unknown) {
		return nil, &Error{Kind: KindNotAttached, Message: "Action Failed " + c.name() + ": " + unknown.Error(), Cause: unknown.Error()}
	}
	if err != nil {
		return nil, err
	}
	if err := c.mine(run); err != nil { // it was joined
		return nil, err
	}
	value, err := h.held(ctx, c, run)
	if over, is := value.(wire.Report); is {
		why := "the hold is over"
		if over.Outcome == string(agent.OutcomeDisabled) {
			why = over.Reason
		}
		return nil, &Error{Kind: KindRefused, Message: "Action Failed " + c.name() + ": " + why, Cause: why, Report: &over}
	}
	return value, err
}

// holdLevel is the level of a hold. A holder is one of the jobs, the director: to lock
// or to stop them would stop who asks.
func (h *Handler) holdLevel(c Call, asked agent.Level) (agent.Level, error) {
	if c.Role != RoleHolder {
		return asked, nil
	}
	level := cmp.Or(asked, h.Agent.Settings.Levels[agent.TriggerDirector])
	if level != agent.LevelLock && level != agent.LevelStop {
		return level, nil
	}
	if asked == "" {
		return agent.LevelFreeze, nil
	}
	return "", &agent.RefusedError{Field: "level", Err: fmt.Errorf("%q would bring to rest who asks: a holder's goes as far as %q", asked, agent.LevelFreeze)}
}

// held is what a hold has come to: its lease, its report, or that it is still being
// brought about.
func (h *Handler) held(ctx context.Context, c Call, run *agent.Run) (any, error) {
	limit := time.NewTimer(cmp.Or(h.Wait, TaskWait))
	defer limit.Stop()
	select {
	case <-run.AtRest():
	case <-run.Done():
	case <-limit.C:
	case <-ctx.Done():
	}
	if closed(run.Done()) {
		return h.report(c, run)
	}
	if lease, ok := run.Lease(); ok {
		return fromLease(lease), nil
	}
	return running(run.ID()), nil
}

func fromLease(l agent.Lease) wire.Lease {
	w := wire.Lease{ID: l.ID, Level: string(l.Reached), Reason: l.Reason, Seconds: time.Until(l.Ends).Seconds()}
	if !l.FreezeBy.IsZero() {
		w.Frozen = time.Until(l.FreezeBy).Seconds()
	}
	return w
}

// holdID reads the id of a hold that the caller may renew and end.
func (h *Handler) holdID(c Call) (string, error) {
	id, err := text(c)
	if err == nil && c.Role != RoleOperator {
		_, err = h.find(c, id)
	}
	return id, err
}

// renew takes a hold's id and the seconds from now until its lease is to end.
func (h *Handler) renew(_ context.Context, c Call) (any, error) {
	id, err := h.holdID(c)
	if err != nil {
		return nil, err
	}
	var seconds float64
	if err := json.Unmarshal(c.list[1], &seconds); err != nil {
		return nil, invalid(c, "Extracting method arguments from payload: Unmarshalling action argument: %v", err)
	}
	lease, err := h.Agent.Renew(id, time.Duration(seconds*float64(time.Second)))
	if err != nil {
		return nil, unknownTask(c, id, err)
	}
	return fromLease(lease), nil
}

// resume takes a hold's id and, if it is known, what became of the snapshot.
func (h *Handler) resume(ctx context.Context, c Call) (any, error) {
	id, err := h.holdID(c)
	if err != nil {
		return nil, err
	}
	var end wire.HoldEnd
	if len(c.list) > 1 {
		if end, err = wire.ParseHoldEnd(c.list[1]); err != nil {
			return nil, invalid(c, "Extracting method arguments from payload: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(h.Wait, TaskWait))
	defer cancel()
	report, err := h.Agent.ResumeHold(ctx, id, agent.HoldEnd{Snapshots: end.Snapshots, Err: end.Error})
	if err != nil {
		return nil, unknownTask(c, id, err)
	}
	w := wire.FromReport(report)
	w.Metrics = h.Samples(report)
	return w, nil
}
