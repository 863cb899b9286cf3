package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/quiesced/quiesced/quiesce/failpoint"
)

// Rounds of syncfs before a freeze: FIFREEZE makes one of its own while writers
// wait, which then takes about as long as the last of these did.
const (
	cheapRound = 20 * time.Millisecond // no other round would win much
	maxRounds  = 8
	longRound  = 500 * time.Millisecond // what a report should tell of
)

// preSync writes out while the application goes on: first ahead and gently, then
// in rounds of syncfs. Where jobs are held it was written ahead before that, and
// starting another process for it would only keep them waiting.
func (p *performer) preSync(ctx context.Context) error {
	if p.guard == nil {
		return nil
	}
	defer p.timed(PhasePreSync, time.Now())
	budget := p.agent.Settings.Budgets.PreSync
	ctx, cancel := context.WithTimeoutCause(ctx, budget, fmt.Errorf("writing out took longer than budgets.pre_sync (%s)", budget))
	defer cancel()
	if p.held == nil {
		p.writeAhead(ctx, budget/2)
	}
	if err := p.writeOut(ctx); err != nil {
		return fmt.Errorf("cannot write out before the snapshot: %w", firstCause(ctx, err))
	}
	p.synced = true
	failpoint.Hit("written-out")
	return nil
}

// writeAhead is a kindness: what it does not write, the rounds do.
func (p *performer) writeAhead(ctx context.Context, limit time.Duration) {
	done, err := p.agent.Freezer.WriteAhead(ctx, p.record.Plan.Filesystems, limit)
	if err != nil {
		p.agent.Log.Warn("writing out may hold up the application", "run", p.run.ID(), "error", err)
		return
	}
	p.agent.Log.Debug("written out ahead", "run", p.run.ID(), "bytes", done.Bytes, "files", done.Files)
}

// writeOut makes rounds until one is cheap, or wins little on those who write
// on, or there is no time for another.
func (p *performer) writeOut(ctx context.Context) error {
	for round := 1; ; round++ {
		last := p.lastRound
		began := time.Now()
		if err := p.guard.Sync(ctx); err != nil {
			return err
		}
		p.lastRound = time.Since(began)
		deadline, _ := ctx.Deadline()
		if p.lastRound <= cheapRound || round > 1 && p.lastRound > last*3/4 ||
			round == maxRounds || time.Until(deadline) < p.lastRound {
			return nil
		}
	}
}

// outrun tells of a writer that dirties faster than the disk takes it.
func (p *performer) outrun() []string {
	if p.lastRound < longRound || !p.record.Plan.Freezes() {
		return nil
	}
	return []string{fmt.Sprintf(
		"the last round of writing out took %s still: something writes faster than the disk takes it, and waited for about as long at the freeze",
		p.lastRound.Round(10*time.Millisecond))}
}
