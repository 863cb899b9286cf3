package agent

import (
	"cmp"
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
	p.record.Phase = ""
	failpoint.Hit("unreported")
	if p.saveReport(report) && !unresolved(report) {
		failpoint.Hit("reported")
		p.discard()
	}
	return report
}

// saveReport makes the record durable with the snapshots of its report, and none that was
// told of before. It returns false where that has to be done later.
func (p *performer) saveReport(report Report) bool {
	a := p.agent
	a.edit.Lock()
	defer a.edit.Unlock()
	c := Change{Records: []Record{p.record}, Snapshots: p.snapshots(report)}
	for _, s := range a.catalogue.ofRun(p.run.ID()) {
		if !slices.ContainsFunc(c.Snapshots, func(n Snapshot) bool { return n.Key() == s.Key() }) {
			c.Gone = append(c.Gone, s.Key())
		}
	}
	err := a.write(c)
	if err != nil {
		a.keepUnsaved(c)
		a.Log.Error("cannot record the run; trying again", "run", p.run.ID(), "error", err)
	}
	return err == nil
}

// publish tells everybody that the run has ended.
func (p *performer) publish(report Report) {
	p.agent.Observer.RunEnded(report)
	p.run.end(report)
	p.agent.retainAfter(p.run, report)
	p.agent.Log.Info("run ended", "run", report.ID, "outcome", report.Outcome, "clean", report.Clean, "error", report.Error)
}

// rejectRepeated refuses a CID that the catalogue has already: two snapshots
// under one CID cannot both be deleted, and the director's database would not
// take the second.
func (p *performer) rejectRepeated() {
	ours := map[string]string{}
	for _, c := range p.calls {
		if c.cid == "" {
			continue
		}
		if other := cmp.Or(p.agent.catalogue.owner(c.cid, p.run.ID()), ours[c.cid]); other != "" {
			c.err = fmt.Errorf("the CPI answered the CID %q, which belongs to %s", c.cid, other)
			c.cid = ""
			continue
		}
		ours[c.cid] = fmt.Sprintf("the snapshot of disk %q in this run", c.disk)
	}
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
		if d.SnapshotCID == "" && !d.Unresolved {
			continue
		}
		s := p.record.snapshot(d, r)
		s.Created = p.calls[i].sent
		all = append(all, s)
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
