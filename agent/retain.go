package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quiesced/quiesced/agent/retention"
)

// failedLimit is after how many failed deletions retention leaves the rest: what is wrong
// is not the one snapshot then.
const failedLimit = 3

// Verdict is what becomes of a snapshot by retention.
type Verdict string

// The verdicts.
const (
	VerdictStays   Verdict = "stays"
	VerdictGoes    Verdict = "goes"    // not yet
	VerdictDeleted Verdict = "deleted" // it is gone
	VerdictFailed  Verdict = "failed"  // it is half deleted, which is tried again
)

// Verdicts lists every verdict.
func Verdicts() []Verdict { return []Verdict{VerdictStays, VerdictGoes, VerdictDeleted, VerdictFailed} }

// Retained is what retention decides on one snapshot.
type Retained struct {
	Snapshot Snapshot
	Verdict  Verdict
	Why      string
	Error    string // why it could not be deleted
}

// Retention is what retention decides, and what came of it. The oldest come first.
type Retention struct {
	Snapshots []Retained
	Note      string // why nothing is deleted, or not everything was that goes
}

// RetentionCounts is what retention did since the daemon began.
type RetentionCounts struct {
	Deleted int
	Failed  int
	Last    time.Time // when all was deleted that went, zero for not yet
}

// PlanRetention says what would become of each snapshot now, and deletes none.
func (a *Agent) PlanRetention() (Retention, error) {
	all, decided, err := a.decide()
	r := Retention{Note: a.keepsAll()}
	for i, d := range decided {
		r.Snapshots = append(r.Snapshots, retained(all[i], d))
	}
	return r, err
}

// ApplyRetention deletes what the policies do not keep, and says what came of each of
// these. It makes way for all other work: what is left then goes after that. The error is a
// *BusyError; deletions that fail are among what it says.
func (a *Agent) ApplyRetention(ctx context.Context) (Retention, error) {
	if note := a.keepsAll(); note != "" {
		return Retention{Note: note}, nil
	}
	var r Retention
	err := a.idleWork(ctx, "apply-retention", func(ctx context.Context) error {
		var err error
		r, err = a.retain(ctx)
		return err
	})
	return r, err
}

// RetainSoon has retention applied once the VM is free, and returns at once.
func (a *Agent) RetainSoon() {
	select {
	case a.apply <- struct{}{}:
	default: // it is due already
	}
}

// retainOn applies retention, whenever it is due and nothing else has the VM, until ctx
// ends.
func (a *Agent) retainOn(ctx context.Context) {
	again := time.NewTimer(0)
	defer again.Stop()
	<-again.C
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.apply:
		case <-again.C:
		}
		_, err := a.ApplyRetention(ctx)
		switch {
		case errors.As(err, new(*BusyError)):
			again.Reset(lookAgain)
		case err != nil:
			a.Log.Error("cannot apply retention", "error", err)
		}
	}
}

// retainAfter has retention applied after a run that has made snapshots of ours: no hold,
// and no restore.
func (a *Agent) retainAfter(run *Run, report Report) {
	if run.hold == nil && report.Restore == nil && report.Outcome == OutcomeSucceeded {
		a.RetainSoon()
	}
}

// keepsAll says why retention deletes nothing, "" if it does.
func (a *Agent) keepsAll() string {
	switch {
	case a.Settings.Keep.Empty():
		return "no policy is configured (keep): all snapshots stay"
	case !a.Settings.Enabled:
		return "snapshots are disabled: nothing is deleted"
	case a.CPI == nil:
		return "no CPI is configured (cpi.path): nothing is deleted"
	}
	return ""
}

// retain deletes what goes, one by one, for whoever holds the VM for it. What goes is
// decided anew before each: a snapshot may be found damaged meanwhile, and another be the
// newest clean one then.
func (a *Agent) retain(ctx context.Context) (Retention, error) {
	var r Retention
	tried := map[string]bool{}
	for failed := 0; ; {
		left, err := a.goes(tried)
		if err != nil {
			return r, err
		}
		if len(left) == 0 {
			a.noteApplied(r)
			return r, nil
		}
		if r.Note = a.leavesRest(ctx, failed); r.Note != "" {
			r.Snapshots = append(r.Snapshots, left...)
			return r, nil
		}
		one := a.retire(ctx, left[0])
		if one.Verdict == VerdictFailed {
			failed++
		}
		tried[one.Snapshot.CID] = true
		r.Snapshots = append(r.Snapshots, one)
	}
}

// goes is what goes now, but for what was tried.
func (a *Agent) goes(tried map[string]bool) ([]Retained, error) {
	all, decided, err := a.decide()
	var left []Retained
	for i, d := range decided {
		if !d.Keep && !tried[d.ID] {
			left = append(left, retained(all[i], d))
		}
	}
	return left, err
}

// leavesRest says why what is left does not go now, "" if it does.
func (a *Agent) leavesRest(ctx context.Context, failed int) string {
	switch {
	case errors.Is(context.Cause(ctx), ErrMadeWay):
		a.RetainSoon()
		fallthrough
	case ctx.Err() != nil:
		return fmt.Sprintf("%v: the rest goes later", context.Cause(ctx))
	case failed == failedLimit:
		return fmt.Sprintf("%d deletions failed: the rest goes later", failed)
	}
	return ""
}

// retire deletes one snapshot, unless other work has it or the VM.
func (a *Agent) retire(ctx context.Context, one Retained) Retained {
	err := a.deleteOne(ctx, one.Snapshot.CID)
	if err == nil {
		one.Verdict = VerdictDeleted
		a.countRetired(func(c *RetentionCounts) { c.Deleted++ })
		return one
	}
	one.Error = err.Error()
	if ctx.Err() != nil || errors.As(err, new(*BusyError)) {
		return one
	}
	one.Verdict = VerdictFailed
	a.countRetired(func(c *RetentionCounts) { c.Failed++ })
	a.Log.Error("cannot delete a snapshot that is not kept", "snapshot", one.Snapshot.CID, "error", err)
	return one
}

// noteApplied notes when all was deleted that went.
func (a *Agent) noteApplied(r Retention) {
	for _, one := range r.Snapshots {
		if one.Verdict != VerdictDeleted {
			return
		}
	}
	a.countRetired(func(c *RetentionCounts) { c.Last = time.Now() })
}

func (a *Agent) countRetired(count func(*RetentionCounts)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	count(&a.retired)
}

// decide asks the policies about each snapshot.
func (a *Agent) decide() ([]Snapshot, []retention.Decision, error) {
	all, err := a.Snapshots()
	entries := make([]retention.Entry, 0, len(all))
	for i := range all {
		entries = append(entries, retentionEntry(&all[i]))
	}
	return all, retention.Plan(a.Settings.Keep, entries, time.Now()), err
}

func retained(s Snapshot, d retention.Decision) Retained {
	one := Retained{Snapshot: s, Verdict: VerdictGoes, Why: d.Why}
	if d.Keep {
		one.Verdict = VerdictStays
	}
	return one
}

// retentionEntry is a snapshot as retention looks at it. One that was looked at and is
// damaged is no clean one.
func retentionEntry(s *Snapshot) retention.Entry {
	return retention.Entry{
		ID: s.CID, Disk: s.DiskCID, Run: s.RunID, Trigger: string(s.Trigger), Time: s.Created,
		Clean: s.Clean && (s.Verified == nil || s.Verified.OK), Apart: apart(s),
	}
}

// apart says why a snapshot is none of retention's business, "" if it is.
func apart(s *Snapshot) string {
	switch {
	case s.Held:
		return "taken in a hold: the director's database has it"
	case s.State == SnapshotUnresolved:
		return "unresolved: nobody knows whether it is there"
	case s.State == SnapshotDeleting:
		return "half deleted: that is tried again"
	case s.RunID == "":
		return "no run of this daemon took it"
	}
	return ""
}
