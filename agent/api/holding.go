package api

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
)

// Quiesce brings the instance to rest for a snapshot that somebody else takes, and
// returns when it is so. The request's id and lease must be given. Asking again with the same
// id joins the hold. Errors: an *Error, of KindNotAttached where there is nothing to
// bring to rest, and whatever ends ctx; the hold may then still come about: Cancel.
func (c Client) Quiesce(ctx context.Context, r agent.Request) (wire.Lease, error) {
	value, err := c.Caller.Call(ctx, "quiesce", wire.FromRequest(r))
	for again := 0; err == nil && isRunning(value, r.ID); again++ {
		value, err = c.end(ctx, r.ID)
		if KindOf(err) == KindInvalid && again < lostTries { // it waited in a daemon that has ended since
			value, err = c.Caller.Call(ctx, "quiesce", wire.FromRequest(r))
		}
	}
	if err != nil {
		return wire.Lease{}, err
	}
	var l wire.Lease
	if err := json.Unmarshal(value, &l); err != nil {
		return l, fmt.Errorf("cannot read the answer to quiesce: %w", err)
	}
	return l, nil
}

// Renew has a hold's lease end so much from now.
func (c Client) Renew(ctx context.Context, id string, lease time.Duration) (wire.Lease, error) {
	return get[wire.Lease](ctx, c, "renew", id, lease.Seconds())
}

// Resume ends a hold, or what is at rest in it (see wire.HoldEnd), and returns when nothing is frozen any more.
// The report says whether the instance was at rest all the time (unbroken). The
// hold's id and the same end can be told again, and told late: the snapshot's CID is
// kept all the same.
func (c Client) Resume(ctx context.Context, id string, end wire.HoldEnd) (wire.Report, error) {
	return get[wire.Report](ctx, c, "resume", id, end)
}
