package agent

import (
	"context"
	"time"

	"github.com/quiesced/quiesced/quiesce"
)

// For the tests of the package: its pure parts.

var (
	NewPlan       = newPlan
	CheckMetadata = checkMetadata
)

func (s *Settings) Completed(r Request) (Request, error) { return s.completed(r) }

func (s *Settings) CheckJob(asked string) error { return s.checkJob(asked) }

func (s *Settings) Selected(cids []string) ([]quiesce.Disk, error) { return s.selected(cids) }

func (r Request) Same(o Request) bool { return r.same(o) }

// Redelete tries what is half deleted, as the run loop does now and then.
func (a *Agent) Redelete(ctx context.Context) error { return a.redelete(ctx) }

// DeleteOne deletes a snapshot without taking the VM.
func (a *Agent) DeleteOne(ctx context.Context, cid string) error { return a.deleteOne(ctx, cid) }

var NextWait = nextWait

// From selects from snapshots.
func (s Selection) From(all []Snapshot, now time.Time) []Snapshot { return s.from(all, now) }

func (a *Agent) WindowTurned(at time.Time) { a.windowTurned(at) }

// Lock hangs the agent until it is unlocked.
func (a *Agent) Lock() (unlock func()) {
	a.mu.Lock()
	return a.mu.Unlock
}

// BeginLease begins a hold's lease, as its run does once everything is at rest, and says
// whether the holder's word is in time.
func (r *Run) BeginLease() (inTime func() bool) {
	r.hold.begin(Lease{ID: r.ID()})
	return r.hold.inTime
}

// Hold is a hold that no agent knows.
func Hold(r Request) (run *Run, tell func(HoldEnd)) {
	run = newRun(context.Background(), r)
	return run, run.hold.tell
}

// Use has a snapshot for other work.
func (a *Agent) Use(cid, work string) (free func(), err error) { return a.use(cid, work) }

// Share has a snapshot for other work that only reads it.
func (a *Agent) Share(cid, work string) (free func(), err error) { return a.share(cid, work) }
