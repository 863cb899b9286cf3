package api

import (
	"context"
	"errors"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
)

// Verified is the value of a finished verify_snapshot.
type Verified struct {
	CID string `json:"snapshot_cid"`
	wire.Verification
	Left string `json:"not_removed,omitempty"` // why the disk that was made for it is not removed yet
}

// Verifying is what a status tells of a verification that is under way, or whose disk is
// not removed yet.
type Verifying struct {
	CID   string    `json:"snapshot_cid"`
	Step  string    `json:"step"`
	Since time.Time `json:"since"`
	Disk  string    `json:"disk_cid,omitempty"`
	Left  string    `json:"not_removed,omitempty"`
}

func verifying(v *agent.VerificationStatus) *Verifying {
	if v == nil {
		return nil
	}
	return &Verifying{CID: v.Snapshot, Step: v.Step, Since: v.Since.UTC(), Disk: v.Disk, Left: v.Left}
}

// verifySnapshot begins a verification: of the snapshot with a CID or, without one, of the
// newest clean one.
func (h *Handler) verifySnapshot(_ context.Context, c Call) (any, error) {
	var cid string
	if len(c.list) > 0 {
		var err error
		if cid, err = text(c); err != nil {
			return nil, err
		}
	}
	return h.tasks.beginCancellable(func(ctx context.Context) (any, error) {
		v, err := h.Agent.Verify(ctx, cid)
		return Verified{
			CID: v.CID, Left: v.Left,
			Verification: wire.Verification{Time: v.Time.UTC(), OK: v.OK, How: v.How, Result: v.Result},
		}, err
	}), nil
}

// cancelWork cancels long work that is no run, and answers when it has undone what it did.
func (h *Handler) cancelWork(ctx context.Context, c Call, t *task) (any, error) {
	switch {
	case closed(t.done):
		return "canceled", nil
	case t.cancel == nil:
		return nil, invalid(c, "not supported")
	}
	t.cancel(agent.ErrCancelled)
	if !h.ended(ctx, t.done) {
		return nil, errors.New("it was told to end and has not removed everything again yet")
	}
	return "canceled", nil
}

// Verify verifies a snapshot, the newest clean one for "", and waits until that has ended.
// When ctx ends it is cancelled, and what it made removed.
func (c Client) Verify(ctx context.Context, cid string) (Verified, error) {
	id, err := c.begin(ctx, "verify_snapshot", cid)
	if err != nil {
		return Verified{}, err
	}
	v, err := await[Verified](ctx, c, id)
	if ctx.Err() == nil {
		return v, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*TaskWait)
	defer cancel()
	_ = c.Cancel(ctx, id) // which the task tells of
	return await[Verified](ctx, c, id)
}
