package agent

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce/failpoint"
)

// finish decides what the run came to and makes it durable.
func (p *performer) finish(err, resumed error) Report {
	p.run.setPhase(PhaseRecord)
	p.rejectRepeated()
	report := p.report(err, resumed)
	p.record.Report = &report
	p.record.Held = p.agent.leftOf(p.run.ID())
	p.record.Snapshots = p.snapshots(report)
	p.record.Phase = ""
	failpoint.Hit("unreported")
	if err := p.save(); err != nil {
		p.agent.keepUnsaved(p.record, err)
	} else if !unresolved(report) {
		failpoint.Hit("reported")
		p.discard()
	}
	return report
}

// publish tells everybody that the run has ended.
func (p *performer) publish(report Report) {
	p.agent.Observer.RunEnded(report)
	p.run.end(report)
	p.agent.Log.Info("run ended", "run", report.ID, "outcome", report.Outcome, "clean", report.Clean, "error", report.Error)
}

// rejectRepeated refuses a CID that the catalogue has already: two snapshots
// under one CID cannot both be deleted, and the director's database would not
// take the second.
func (p *performer) rejectRepeated() {
	owner, err := p.agent.owners(p.run.ID())
	if err != nil {
		p.agent.Log.Error("cannot compare the new CIDs with the catalogue", "run", p.run.ID(), "error", err)
	}
	for _, c := range p.calls {
		if c.cid == "" {
			continue
		}
		if other, taken := owner[c.cid]; taken {
			c.err = fmt.Errorf("the CPI answered the CID %q, which belongs to %s", c.cid, other)
			c.cid = ""
			continue
		}
		owner[c.cid] = fmt.Sprintf("the snapshot of disk %q in this run", c.disk)
	}
}

// owners are the snapshots of other runs than one, by their CIDs, in words. It is
// there with an error, too.
func (a *Agent) owners(but string) (map[string]string, error) {
	owner := map[string]string{}
	known, err := a.Snapshots()
	for _, s := range known {
		if s.RunID != but && s.CID != "" {
			owner[s.CID] = fmt.Sprintf("the snapshot of disk %q in run %s", s.DiskCID, s.RunID)
		}
	}
	return owner, err
}

// report says what happened. Its error and outcome come from the steps, its
// cleanness from the kernel's answers alone.
func (p *performer) report(err, resumed error) Report {
	r := Report{
		ID:        p.run.ID(),
		Trigger:   p.run.request.Trigger,
		By:        p.run.request.By,
		Asked:     p.record.Plan.Asked,
		Reached:   p.reached(),
		Reason:    p.reason(),
		Phases:    p.times(),
		Started:   p.run.started,
		Ended:     time.Now(),
		Recovered: p.recovered,
		Yielded:   p.held != nil && !p.held.Empty() && resumed == nil,
		Notes:     slices.Concat(p.record.Plan.levelNotes(), p.notes, p.outrun()),
	}
	if p.record.Freeze != nil {
		r.Thaws = p.record.Freeze.Thaws
	}
	if p.run.hold != nil {
		unbroken := p.unbroken()
		r.Unbroken = &unbroken
	}
	r.Disks = p.disks(r.Reason == "")
	r.Clean = len(r.Disks) > 0
	for _, d := range r.Disks {
		r.Clean = r.Clean && d.Clean
	}
	r.Outcome, r.Error = p.outcome(err, resumed)
	return r
}

// reached is the level that the snapshots really have.
func (p *performer) reached() Level {
	switch {
	case !p.told():
		return LevelNone
	case p.broken() != "" && p.synced:
		return LevelSync
	case p.broken() != "":
		return LevelNone
	case p.moved != "":
		return LevelFreeze
	}
	return p.record.Plan.Level
}

// reason says why the snapshots are not clean, "" when they are.
func (p *performer) reason() string {
	plan := &p.record.Plan
	switch why := p.broken(); {
	case !p.told():
		return "no snapshot was taken"
	case why != "":
		return why
	case p.moved != "":
		return p.moved
	case plan.Degraded != "":
		return plan.Degraded
	case !plan.Level.Clean():
		return fmt.Sprintf("level %q promises no more than a crash would leave", plan.Level)
	}
	return ""
}

// disks is what became of each disk; held says that the snapshots hold what the
// level asked for promises.
func (p *performer) disks(held bool) []DiskResult {
	results := make([]DiskResult, 0, len(p.calls))
	for _, c := range p.calls {
		d := DiskResult{CID: c.disk, SnapshotCID: c.cid, Took: p.took(c)}
		if c.err != nil {
			d.Error = c.err.Error()
			d.Unresolved = !c.sent.IsZero() && !answeredNo(c.err)
		}
		d.Clean = held && c.cid != ""
		results = append(results, d)
	}
	return results
}

// answeredNo says that the CPI itself answered that there is no snapshot, or the
// holder did.
func answeredNo(err error) bool {
	return errors.As(err, new(*cpi.Error)) || errors.As(err, new(*HolderError))
}

// times adds the slowest call's time to the phases measured on the way.
func (p *performer) times() map[Phase]time.Duration {
	for _, c := range p.calls {
		if took := p.took(c); took > 0 {
			p.phases[PhaseSnapshot] = max(p.phases[PhaseSnapshot], took)
		}
	}
	p.phases[PhaseTotal] = time.Since(p.run.started)
	return maps.Clone(p.phases) // a hold's goes on
}

// took is how long the CPI needed to answer, 0 where that is not known.
func (p *performer) took(c *call) time.Duration {
	if p.recovered || c.sent.IsZero() || c.answered.IsZero() {
		return 0
	}
	return c.answered.Sub(c.sent)
}

// outcome is how the run ended and the error that made it so.
func (p *performer) outcome(err, resumed error) (Outcome, string) {
	why := p.whyNot(err, resumed)
	if why == nil && p.broken() != "" && !p.run.request.AllowDegrade {
		why = fmt.Errorf("cannot reach level %q: %s", p.record.Plan.Asked, p.broken())
	}
	if why == nil && p.moved != "" && !p.run.request.AllowDegrade {
		why = fmt.Errorf("cannot reach level %q: %s", p.record.Plan.Asked, p.moved)
	}
	switch {
	case resumed != nil:
		return OutcomeNotResumed, why.Error()
	case errors.Is(err, ErrCancelled):
		return OutcomeCancelled, why.Error()
	case why != nil:
		return OutcomeFailed, why.Error()
	}
	return OutcomeSucceeded, ""
}

// snapshots are the catalogue's new entries: what has a CID, and what may have
// one that nobody knows.
func (p *performer) snapshots(r Report) []Snapshot {
	var all []Snapshot
	for i, d := range r.Disks {
		s := Snapshot{
			CID: d.SnapshotCID, DiskCID: d.CID, State: SnapshotKnown, Clean: d.Clean, Level: r.Reached,
			Trigger: r.Trigger, RunID: r.ID, By: r.By, Created: p.calls[i].sent, Note: r.Reason,
		}
		if d.Unresolved {
			s.State, s.Note = SnapshotUnresolved, d.Error
		}
		if s.CID != "" || d.Unresolved {
			all = append(all, s)
		}
	}
	return all
}

func unresolved(r Report) bool {
	for _, d := range r.Disks {
		if d.Unresolved {
			return true
		}
	}
	return false
}
