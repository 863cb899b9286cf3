package api

import (
	"context"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
)

// ReconcileOptions is the one optional argument of reconcile.
type ReconcileOptions struct {
	Adopt bool `json:"adopt,omitempty"` // what only the CPI has
	Drop  bool `json:"drop,omitempty"`  // what the CPI does not have
}

// Reconciled is the value of a finished reconcile.
type Reconciled struct {
	Known    int             `json:"known"`    // in the catalogue and with the CPI
	Sized    int             `json:"sized"`    // of those, whose sizes were not known before
	Resolved []wire.Snapshot `json:"resolved"` // whose CIDs were not known before
	Missing  []wire.Snapshot `json:"missing"`  // in the catalogue alone
	Dropped  []wire.Snapshot `json:"dropped"`
	Unknown  []Unknown       `json:"unknown"` // of this instance's disks, with the CPI alone
	Adopted  []wire.Snapshot `json:"adopted"`
}

// Unknown is a snapshot that only the CPI knows. Sizes are in bytes.
type Unknown struct {
	CID      string     `json:"snapshot_cid"`
	DiskCID  string     `json:"disk_cid"`
	Created  *time.Time `json:"created_at,omitempty"`
	Size     int64      `json:"size,omitempty"`
	DiskSize int64      `json:"disk_size,omitempty"`
}

func (h *Handler) reconcile(_ context.Context, c Call) (any, error) {
	var o ReconcileOptions
	if len(c.list) > 0 {
		var err error
		if o, err = wire.ParseOptions[ReconcileOptions](c.list[0]); err != nil {
			return nil, invalid(c, "Extracting method arguments from payload: %v", err)
		}
	}
	options := agent.ReconcileOptions{Adopt: o.Adopt, Drop: o.Drop, By: c.by()}
	return h.tasks.begin(func(ctx context.Context) (any, error) {
		r, err := h.Agent.Reconcile(ctx, options)
		if err != nil {
			return nil, err
		}
		return h.reconciled(r), nil
	}), nil
}

func (h *Handler) reconciled(r agent.Reconciliation) Reconciled {
	w := Reconciled{
		Known: r.Known, Sized: r.Sized, Unknown: []Unknown{},
		Resolved: h.list(r.Resolved), Missing: h.list(r.Missing), Dropped: h.list(r.Dropped), Adopted: h.list(r.Adopted),
	}
	for _, info := range r.Unknown {
		w.Unknown = append(w.Unknown, Unknown{info.CID, info.DiskCID, instant(info.Created), info.Size, info.DiskSize})
	}
	return w
}

func (h *Handler) list(all []agent.Snapshot) []wire.Snapshot {
	list := make([]wire.Snapshot, 0, len(all))
	for _, s := range all {
		list = append(list, wire.FromSnapshot(s, h.Agent.Settings.Instance))
	}
	return list
}

// Reconcile compares the catalogue with the CPI's list, and waits until that has ended.
func (c Client) Reconcile(ctx context.Context, o ReconcileOptions) (Reconciled, error) {
	id, err := c.begin(ctx, "reconcile", o)
	if err != nil {
		return Reconciled{}, err
	}
	return await[Reconciled](ctx, c, id)
}
