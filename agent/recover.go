package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce/guard"
)

// retryEvery is how often what could not be thawed or recorded is tried again.
const retryEvery = 5 * time.Second

// errCutOff is the cause of a run that its daemon's end cut off.
var errCutOff = errors.New("the daemon ended")

// Recover goes on with the runs that an earlier daemon left without a report.
// left is what came of their freezes, from Freezer.Recover, which needs no
// journal and so comes before it. CPI processes that still run are waited for in
// the background, as a run that holds the VM. It must be called before any
// request is accepted.
func (a *Agent) Recover(left []guard.Recovered) error {
	a.noteStuck(left)
	records, err := a.Journal.All()
	if err != nil {
		return a.journalFailed(err)
	}
	for _, r := range records {
		if r.Report == nil {
			a.takeUp(r, left)
		}
	}
	return nil
}

// takeUp goes on with a run that was cut off. Its resume has happened already:
// what is left is to learn what the CPI did, and to report.
func (a *Agent) takeUp(r Record, left []guard.Recovered) {
	run := newRun(a.lifetime, r.Request)
	run.started = r.Started
	p := &performer{agent: a, run: run, record: r, recovered: true, phases: map[Phase]time.Duration{}}
	p.adopt(left)
	a.keep(run)
	run.setPhase(PhaseWaiting)
	a.Log.Warn("taking up a run that was cut off", "run", run.ID(), "phase", r.Phase)
	a.jobs.Go(func() {
		if a.await(a.lifetime, "run "+run.ID(), run) != nil {
			return
		}
		cut := fmt.Errorf("the daemon ended while the run was in phase %q or later", r.Phase)
		run.setPhase(PhaseSnapshot)
		if !p.collect() {
			a.release()
			return
		}
		report := p.finish(cut, p.stuck(left))
		a.release()
		p.publish(report)
	})
}

// adopt takes over the CPI processes of a record and how its freeze ended.
func (p *performer) adopt(left []guard.Recovered) {
	p.fixed = make(chan *call, len(p.record.Calls))
	p.ended = make(chan *call, len(p.record.Calls))
	p.synced = true // calls are recorded after the writing out
	client := p.agent.CPI
	if client == nil {
		client = &cpi.Client{}
	}
	for _, rec := range p.record.Calls {
		process := rec.Process
		if p.record.Boot != bootID() {
			process = cpi.Process{} // its pid may be anybody's now
		}
		c := &call{disk: rec.DiskCID, sent: p.record.Started}
		p.calls = append(p.calls, c)
		if c.process, c.err = client.Reattach(rec.Dir, process); c.err == nil {
			p.await(c)
		}
	}
	if p.record.Freeze != nil && p.record.Freeze.Phases != nil {
		p.phases = p.record.Freeze.Phases
	}
	for _, l := range left {
		if l.RunID == p.run.ID() {
			p.freezeEnded(l.Result, errCutOff)
		}
	}
}

// stuck is the error of a run of whose filesystems some are still frozen.
func (p *performer) stuck(left []guard.Recovered) error {
	for _, r := range left {
		if r.RunID == p.run.ID() && r.Err != nil {
			return fmt.Errorf("cannot thaw: %w", r.Err)
		}
	}
	return nil
}

// noteStuck remembers what is still frozen.
func (a *Agent) noteStuck(left []guard.Recovered) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stuck = nil
	for _, r := range left {
		if r.Err != nil {
			a.stuck = append(a.stuck, r)
			a.Log.Error("cannot thaw what a dead guard left frozen", "run", r.RunID, "error", r.Err)
			continue
		}
		a.Log.Warn("found the record of a freeze", "run", r.RunID, "now", r.Recovery, "cause", r.Result.Cause)
	}
}

// addStuck remembers what a run could not thaw, for Run to try again.
func (a *Agent) addStuck(r guard.Recovered) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stuck = append(a.stuck, r)
}

// Run tries again, until ctx ends, what could not be thawed or recorded.
func (a *Agent) Run(ctx context.Context) {
	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.retry(ctx)
		}
	}
}

func (a *Agent) retry(ctx context.Context) {
	if !a.hasLeftovers() || a.acquire("making good what was left", nil) != nil {
		return
	}
	defer a.release()
	if a.isStuck() {
		left, err := a.Freezer.Recover(ctx, true)
		a.noteStuck(left)
		if err != nil {
			a.Log.Error("cannot read every record of a freeze", "error", err)
		}
	}
	a.saveUnsaved()
}

func (a *Agent) hasLeftovers() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.stuck)+len(a.unsaved) > 0
}

func (a *Agent) isStuck() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.stuck) > 0
}

// keepUnsaved holds a record that the journal did not take. What the CPI
// printed stays on disk meanwhile, so that even a crash now loses no CID.
func (a *Agent) keepUnsaved(r Record, err error) {
	a.Log.Error("cannot record the run; trying again", "run", r.Request.ID, "error", err)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unsaved[r.Request.ID] = r
	a.recordsChanged()
}

// recordsChanged needs mu held.
func (a *Agent) recordsChanged() {
	a.history = nil
	a.changes++
}

// saveUnsaved tries the records that the journal did not take.
func (a *Agent) saveUnsaved() {
	a.mu.Lock()
	waiting := slices.Collect(maps.Values(a.unsaved))
	a.mu.Unlock()
	for _, r := range waiting {
		if a.put(r) == nil {
			a.Log.Info("recorded the run", "run", r.Request.ID)
		}
	}
}

// put makes a record durable, which replaces one that was not taken before.
func (a *Agent) put(r Record) error {
	if err := a.Journal.Put(r); err != nil {
		return a.journalFailed(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.unsaved, r.Request.ID)
	a.recordsChanged()
	return nil
}
