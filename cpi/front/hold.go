package front

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/wire"
)

// retryWait is the pause after a call that nobody answered.
const retryWait = 250 * time.Millisecond

// Link is a way to a VM's daemon. Its Call returns early when the way is lost.
type Link interface {
	api.Caller
	Close()
}

// hold has one VM at rest for one snapshot. Its calls can be repeated, and are where
// nobody answers.
type hold struct {
	request agent.Request
	answer  time.Duration // for a daemon's answer to a question
	dial    func(context.Context) (Link, error)
	link    Link // nil while there is none

	thawed *wire.Report // when the daemon was told that the point in time is fixed
	over   error        // why the daemon holds nothing any more, nil as far as is known
}

// try makes one call, which has to be answered in time. A link over which no answer
// came is not used again.
func (h *hold) try(ctx context.Context, call func(context.Context, api.Client) error) error {
	if h.link == nil {
		limit, cancel := context.WithTimeoutCause(ctx, h.answer, h.late("the daemon's bus or socket"))
		defer cancel()
		link, err := h.dial(limit)
		if err != nil {
			return err
		}
		h.link = link
	}
	err := call(ctx, api.Client{Caller: timed{h.link, h}})
	if !answered(err) && ctx.Err() == nil {
		h.close()
	}
	return err
}

func (h *hold) late(who string) error {
	return &api.Error{Kind: api.KindUnreachable, Message: fmt.Sprintf("no answer from %s within %s", who, h.answer)}
}

// timed bounds each call by itself: what was lost on the way is asked for again before
// the lease has run out. A daemon that merely takes its time for the VM to come to rest
// is asked again, too, which changes nothing.
type timed struct {
	Link
	hold *hold
}

// Call implements api.Caller.
func (t timed) Call(ctx context.Context, method string, arguments ...any) (json.RawMessage, error) {
	within := t.hold.answer
	if method == "quiesce" || method == "get_task" {
		within = max(within, t.hold.request.Lease/3)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, within, t.hold.late("the daemon"))
	defer cancel()
	return t.Link.Call(ctx, method, arguments...)
}

// answered says whether a call reached a daemon: an exception is an answer, too.
func answered(err error) bool {
	var own *api.Error
	return err == nil || errors.As(err, &own) && own.Kind != api.KindUnreachable
}

// persist repeats a call until it is answered, but gives up when ctx ends or the daemon
// has said nothing for as long as the lease lasts: then there is no hold any more.
func (h *hold) persist(ctx context.Context, call func(context.Context, api.Client) error) error {
	heard := time.Now()
	for {
		err := h.try(ctx, call)
		if answered(err) || ctx.Err() != nil {
			return err
		}
		if h.find(ctx) == nil {
			heard = time.Now()
		}
		if time.Since(heard) > h.request.Lease || pause(ctx, retryWait) != nil {
			return err
		}
	}
}

func pause(ctx context.Context, wait time.Duration) error {
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// begin brings the VM to rest. The error is of api.KindNotAttached where there is
// nothing to bring to rest. After any error nothing is held, as far as the daemon
// could be told.
func (h *hold) begin(ctx context.Context, within time.Duration) (wire.Lease, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("it was not at rest within %s", within))
	defer cancel()
	var lease wire.Lease
	err := h.persist(ctx, func(ctx context.Context, c api.Client) (err error) {
		lease, err = c.Quiesce(ctx, h.request)
		return err
	})
	if err == nil && lease.ID != h.request.ID {
		err = errors.New("what the daemon answers is no lease")
	}
	if !answered(err) {
		h.cancel(context.WithoutCancel(ctx))
	}
	return lease, err
}

// find waits for a daemon: whoever answers, be it that we may not ask.
func (h *hold) find(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, h.answer, h.late("the daemon"))
	defer cancel()
	var why error
	for {
		err := h.try(ctx, func(ctx context.Context, c api.Client) error {
			_, err := c.Info(ctx)
			return err
		})
		if answered(err) {
			return nil
		}
		if why == nil || ctx.Err() == nil {
			why = err
		}
		if pause(ctx, retryWait) != nil {
			return why
		}
	}
}

// cancel tells a daemon, if it listens, that the hold is not wanted any more.
func (h *hold) cancel(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, h.answer)
	defer cancel()
	_ = h.try(ctx, func(ctx context.Context, c api.Client) error { return c.Cancel(ctx, h.request.ID) })
}

// errLeft is why the VM was set going before there was an answer.
var errLeft = errors.New("the CPI ended without an answer, and left behind what might still give one")

// keep renews the lease until the outcome is known. Before that it tells the daemon
// when the point in time is fixed, or gives the hold up when the CPI has left its work to
// others: nobody knows when they do it. What cannot be told is tried again.
func (h *hold) keep(known context.Context, fixed, left <-chan struct{}, thawed func()) {
	next := time.NewTimer(h.request.Lease / 3)
	defer next.Stop()
	tell := h.renew
	for {
		select {
		case <-known.Done():
			return
		case <-fixed:
			fixed, tell = nil, h.thaw
		case <-left:
			left, tell = nil, h.giveUp
		case <-next.C:
		}
		if known.Err() != nil {
			return
		}
		next.Reset(h.step(known, tell, thawed))
	}
}

// step tells the daemon the one thing that it has to know next, and returns the time
// until the next step.
func (h *hold) step(ctx context.Context, tell func(context.Context, api.Client) error, thawed func()) time.Duration {
	const never = 24 * time.Hour
	if h.over != nil {
		return never
	}
	ctx, cancel := context.WithTimeoutCause(ctx, h.request.Lease/3, h.late("the daemon"))
	defer cancel()
	err := h.try(ctx, tell)
	switch {
	case err == nil:
		if h.thawed != nil || h.over != nil {
			thawed()
		}
		return h.request.Lease / 3
	case answered(err) && api.KindOf(err) != api.KindBusy:
		h.over = err
		thawed()
		return never
	}
	return retryWait
}

func (h *hold) renew(ctx context.Context, c api.Client) error {
	_, err := c.Renew(ctx, h.request.ID, h.request.Lease)
	return err
}

// thaw tells that the point in time is fixed, and renews the lease once that was told.
func (h *hold) thaw(ctx context.Context, c api.Client) error {
	if h.thawed != nil {
		return h.renew(ctx, c)
	}
	report, err := c.Resume(ctx, h.request.ID, wire.HoldEnd{})
	if err == nil {
		h.thawed = &report
	}
	return err
}

// giveUp has the VM set going before the point in time is fixed, unless that was told.
func (h *hold) giveUp(ctx context.Context, c api.Client) error {
	if h.thawed != nil {
		return h.renew(ctx, c)
	}
	err := c.Cancel(ctx, h.request.ID)
	if err == nil {
		h.over = errLeft
	}
	return err
}

// end tells the outcome and returns the hold's report.
func (h *hold) end(ctx context.Context, outcome wire.HoldEnd) (report wire.Report, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, h.request.Lease+h.answer, h.late("the daemon"))
	defer cancel()
	for {
		err = h.persist(ctx, func(ctx context.Context, c api.Client) (err error) {
			report, err = c.Resume(ctx, h.request.ID, outcome)
			return err
		})
		if api.KindOf(err) != api.KindBusy || pause(ctx, retryWait) != nil {
			return report, err
		}
	}
}

func (h *hold) close() {
	if h.link != nil {
		h.link.Close()
		h.link = nil
	}
}
