package agent

import (
	"context"
	"time"

	"github.com/quiesced/quiesced/cpi"
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

// Compare compares a catalogue with the list of a CPI, which may make snapshots for so long
// after it was told; disk d1 is this instance's.
func Compare(known []Snapshot, list []cpi.SnapshotInfo, in Instance, late time.Duration, o ReconcileOptions) (Reconciliation, Change) {
	c := comparison{known: known, list: list, mine: map[string]bool{"d1": true}, instance: in, late: late, options: o}
	change := c.compare()
	return c.found, change
}

// CopyOut looks where the disks are, and brings the catalogue's copies up to date, as the
// run loop does.
func (a *Agent) CopyOut(ctx context.Context) {
	a.copier.looked = time.Time{}
	a.copyOut(ctx)
}

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

// RetainOn applies retention whenever it is due, as Run has it done.
func (a *Agent) RetainOn(ctx context.Context) { a.retainOn(ctx) }

// Record writes a change that no run makes.
func (a *Agent) Record(c Change) error {
	a.edit.Lock()
	defer a.edit.Unlock()
	return a.write(c)
}

// TakeFrom performs a run that freezes nothing and starts no process: once its call is on
// record, snapshot is called, which prints into a directory as a CPI does and returns the
// CID. Its admission, its records, its report and its end are those of every run.
func (a *Agent) TakeFrom(r Request, snapshot func(dir string) string) error {
	r, err := a.Settings.completed(r)
	if err != nil {
		return err
	}
	if run, err := a.known(r); run != nil || err != nil {
		return err
	}
	run := newRun(a.lifetime, r)
	if err := a.acquire("run "+r.ID, run); err != nil {
		return err
	}
	p, err := a.record(run, &Plan{Asked: r.Level, Level: r.Level, Disks: a.Settings.Disks}, &Inventory{}, nil)
	if err != nil {
		a.release()
		return err
	}
	a.keep(run)
	p.phases = map[Phase]time.Duration{}
	p.calls = []*call{{disk: a.Settings.Disks[0].CID, sent: time.Now()}}
	p.record.Calls = []Call{{DiskCID: p.calls[0].disk, Dir: p.dir(0)}}
	if err = p.save(); err == nil {
		p.calls[0].cid = snapshot(p.dir(0))
	}
	report := p.finish(err, nil)
	a.release()
	p.publish(report)
	return err
}
