package agent

import (
	"context"
	"time"

	"github.com/quiesced/quiesced/quiesce"
)

// linger is for how long jobs that a hold brought to rest wait for the director's
// next call: it has every disk of an instance snapshotted, one call after the other,
// and does not say how many there are.
func (p *performer) linger() {
	l := p.lingering
	if l == nil {
		return
	}
	p.run.setPhase(PhaseLinger)
	began := time.Now()
	limit := time.NewTimer(p.agent.Settings.Budgets.Linger)
	defer limit.Stop()
	tick := time.NewTicker(markEvery)
	defer tick.Stop()
	for p.next == nil {
		select {
		case run := <-l.next:
			p.handOver(run)
			if p.next == nil {
				p.agent.setLingering(l) // that one came to nothing
			}
			continue
		case <-tick.C:
			if !p.held.Stopped || !p.agent.takenFrom(p.held.Run) {
				continue
			}
		case <-l.enough:
		case <-limit.C:
		case <-p.run.ctx.Done():
		}
		break
	}
	p.timed(PhaseLinger, began)
	p.agent.setLingering(nil)
	select {
	case run := <-l.next: // it came in that instant
		p.handOver(run)
	default:
	}
}

// lingers says whether another call of the director's is to be expected.
func (p *performer) lingers() bool {
	h := p.run.hold
	if h == nil || p.held == nil || p.held.Empty() || h.cutOffErr() != nil || !isClosed(h.told) || !p.unbroken() {
		return false
	}
	disks, err := p.agent.Settings.attached()
	if err != nil {
		return false
	}
	for _, d := range disks {
		if !p.asked[d.CID] {
			return true
		}
	}
	return false
}

// handOver has another hold go on from the rest to which this one has brought the
// jobs. One that cannot is refused, and this one lingers on.
func (p *performer) handOver(run *Run) {
	in := *p.inventory
	in.Held = true
	if p.run.ctx.Err() != nil {
		p.agent.refused(run, context.Cause(p.run.ctx))
		return
	}
	next, err := p.agent.beginWith(run, &in, p.held)
	if err != nil {
		p.agent.refused(run, err)
		return
	}
	next.inherited, next.downSince, next.lockedSince = true, p.downSince, p.lockedSince
	for disk := range p.asked {
		next.asked[disk] = true
	}
	p.held, p.record.Held, p.next = nil, nil, next
	p.agent.setHolder(&holder{work: "run " + run.ID(), run: run, since: time.Now()})
}

// lingering is a hold that waits for the director's next call.
type lingering struct {
	level  Level
	asked  map[string]bool // CIDs of the disks that had their calls
	next   chan *Run       // takes one
	enough chan struct{}   // closed to have it end
}

func (a *Agent) setLingering(l *lingering) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lingering = l
}

// continued gives a request to the hold that lingers, if it is its next. Any other
// that waits for the VM ends the lingering: it would wait for nothing.
func (a *Agent) continued(r Request) *Run {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.lingering
	other := l == nil || r.Lease == 0 || r.Level != l.level || len(r.Disks) == 0 || anyOf(r.Disks, l.asked)
	if l == nil || other && !r.Wait {
		return nil
	}
	a.lingering = nil
	if other {
		close(l.enough)
		return nil
	}
	run := newRun(a.lifetime, r)
	l.next <- run
	return run
}

func anyOf(disks []string, asked map[string]bool) bool {
	for _, d := range disks {
		if asked[d] {
			return true
		}
	}
	return false
}

// disksOf are the CIDs of disks.
func disksOf(all []quiesce.Disk) map[string]bool {
	cids := map[string]bool{}
	for _, d := range all {
		cids[d.CID] = true
	}
	return cids
}
