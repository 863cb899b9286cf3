package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/quiesced/quiesced/cpi"
)

// ErrLeaseExpired is the cause of a hold whose holder did not renew its lease.
var ErrLeaseExpired = errors.New("the lease ran out")

// HolderError is why there is no snapshot, in the words of who was to take it.
type HolderError struct{ Message string }

func (e *HolderError) Error() string { return "the holder says: " + e.Message }

// Lease is the holder's side of a hold that is at rest.
type Lease struct {
	ID       string
	Reached  Level // so far
	Reason   string
	Ends     time.Time // of the lease
	FreezeBy time.Time // when the freeze ends by itself, zero where nothing is frozen
}

// HoldEnd is what a holder tells. With neither snapshots nor an error it says that
// the point in time is fixed: nothing has to be kept at rest any more.
type HoldEnd struct {
	Snapshots map[string]string // CIDs of snapshots by those of disks
	Err       string            // why there is no snapshot
}

func (e HoldEnd) outcome() bool { return len(e.Snapshots) > 0 || e.Err != "" }

// hold is the lease of a run whose snapshot somebody else takes. Its run sees in it
// what it sees in a CPI's process.
type hold struct {
	cancel context.CancelCauseFunc // of the run

	atRest    chan struct{} // closed when the lease begins
	fixed     chan struct{} // closed when nothing has to be kept at rest any more
	told      chan struct{} // closed when the outcome is known, or none is to be expected any more
	released  chan struct{} // closed when a first report is there: nothing is frozen
	accounted chan struct{} // closed when a report with the outcome in it is there

	mu      sync.Mutex
	lease   Lease         // guarded by mu: zero before atRest
	renewal time.Duration // guarded by mu: of the lease
	timer   *time.Timer   // guarded by mu: ends the lease
	end     HoldEnd       // guarded by mu
	cut     error         // guarded by mu: why the holder's word is not waited for any more, nil while it is
	kept    bool          // guarded by mu: he said that the point in time is fixed while he had the lease
	report  *Report       // guarded by mu: the newest
}

func newHold(r Request, cancel context.CancelCauseFunc) *hold {
	if r.Lease == 0 {
		return nil
	}
	return &hold{
		cancel: cancel, renewal: r.Lease,
		atRest: make(chan struct{}), fixed: make(chan struct{}), told: make(chan struct{}),
		released: make(chan struct{}), accounted: make(chan struct{}),
	}
}

// begin begins the lease.
func (h *hold) begin(l Lease) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l.Ends = time.Now().Add(h.renewal)
	h.lease = l
	h.timer = time.AfterFunc(h.renewal, func() { h.cutOff(ErrLeaseExpired) })
	close(h.atRest)
}

// renew has the lease end so much from now, unless it has ended.
func (h *hold) renew(lease time.Duration) (Lease, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.cut != nil:
		return Lease{}, refuse("", "the hold is over: %w", h.cut)
	case isClosed(h.told):
		return Lease{}, refuse("", "the hold is over: its outcome was told")
	case h.timer == nil:
		return Lease{}, refuse("", "the hold is not at rest yet")
	}
	h.renewal = lease
	h.timer.Reset(lease)
	h.lease.Ends = time.Now().Add(lease)
	return h.lease, nil
}

// tell takes the holder's word. The first outcome counts.
func (h *hold) tell(end HoldEnd) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if isClosed(h.told) {
		return
	}
	if !isClosed(h.fixed) {
		h.kept = h.kept || isClosed(h.atRest)
		close(h.fixed)
	}
	if end.outcome() {
		h.end = HoldEnd{Snapshots: maps.Clone(end.Snapshots), Err: end.Err}
		h.over()
	}
}

// adopt is tell for a word that an earlier daemon had while its holder had the lease.
func (h *hold) adopt(end HoldEnd) {
	h.mu.Lock()
	h.kept = true
	h.mu.Unlock()
	h.tell(end)
}

// inTime says whether the holder said that the point in time is fixed while he had the
// lease; a CPI always does.
func (h *hold) inTime() bool {
	if h == nil {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kept
}

// cutOff ends the hold without the holder.
func (h *hold) cutOff(why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if isClosed(h.told) {
		return
	}
	h.cut = why
	h.cancel(why) // before fixed: the window must not take that for the holder's word
	if !isClosed(h.fixed) {
		close(h.fixed)
	}
	h.over()
}

// over needs mu held.
func (h *hold) over() {
	if h.timer != nil {
		h.timer.Stop()
	}
	close(h.told)
}

// cutOffErr is why the holder's word is not waited for any more, nil while it is; of
// a run that is no hold, too.
func (h *hold) cutOffErr() error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cut
}

// tellReport gives the holder a report, the last one when the outcome is in it.
func (h *hold) tellReport(r Report, outcome bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.report = &r
	if !isClosed(h.released) {
		close(h.released)
	}
	if outcome && !isClosed(h.accounted) {
		close(h.accounted)
	}
}

// outcome is what was told first.
func (h *hold) outcome() HoldEnd {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.end
}

func (h *hold) lastReport() (Report, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.report == nil {
		return Report{}, false
	}
	return *h.report, true
}

// taking is what takes one disk's snapshot: a CPI's process, or a holder.
type taking interface {
	Process() cpi.Process
	Send() error
	PointInTime() <-chan struct{}
	Done() <-chan struct{}
	Wait(context.Context) (cpi.Answer, error)
	Abort()
	Kill(grace time.Duration)
}

// heldCall is a holder who takes one disk's snapshot. What it is asked for is asked
// of the lease.
type heldCall struct {
	hold *hold
	disk string
}

func (c heldCall) Process() cpi.Process         { return cpi.Process{} }
func (c heldCall) Send() error                  { return nil }
func (c heldCall) PointInTime() <-chan struct{} { return c.hold.fixed }
func (c heldCall) Done() <-chan struct{}        { return c.hold.told }
func (c heldCall) Abort()                       {}

func (c heldCall) Kill(time.Duration) {
	c.hold.cutOff(errors.New("the holder took too long"))
}

// Wait is the answer that the holder's word comes to. It is asked for when that is
// there.
func (c heldCall) Wait(context.Context) (cpi.Answer, error) {
	c.hold.mu.Lock()
	defer c.hold.mu.Unlock()
	switch cid, ok := c.hold.end.Snapshots[c.disk]; {
	case ok:
		result, err := json.Marshal(cid)
		return cpi.Answer{Result: result}, err
	case c.hold.end.Err != "":
		return cpi.Answer{}, &HolderError{c.hold.end.Err}
	case c.hold.cut != nil:
		return cpi.Answer{}, fmt.Errorf("the holder did not tell what became of it: %w", c.hold.cut)
	}
	return cpi.Answer{}, &HolderError{fmt.Sprintf("nothing of disk %q", c.disk)}
}
