package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
)

// recoveryPoints are passed by a daemon that takes up a run, and by the guard that
// thaws for it. A fault there hits the recovery.
var recoveryPoints = []string{"thawing", "thawed", "thaw-recorded", "taken-up", "unreported", "reported"}

// drawn is what a seed comes to.
type drawn struct {
	on     kind
	steps  []step
	cancel time.Duration // after which the run is cancelled, 0 for not
	second time.Duration // after which another run is asked for, 0 for not
}

func (d drawn) String() string {
	text := []string{d.on.String()}
	for _, s := range d.steps {
		text = append(text, s.String())
	}
	if d.cancel > 0 {
		text = append(text, "cancelled after "+d.cancel.String())
	}
	if d.second > 0 {
		text = append(text, "another asked for after "+d.second.String())
	}
	return strings.Join(text, ", ")
}

// draw is the same for the same seed.
func draw(seed uint64) drawn {
	r := rand.New(rand.NewPCG(seed, 0))
	d := drawn{on: someKind(r)}
	d.steps = append(d.steps, firstStep(r, d.on))
	if r.IntN(3) == 0 {
		d.steps = append(d.steps, nextStep(r, d.on, d.steps[0]))
	}
	if d.steps[0].at != "" {
		return d // the run must come to that point
	}
	if r.IntN(4) == 0 {
		d.cancel = moment(r, d.on)
	}
	if r.IntN(4) == 0 {
		d.second = moment(r, d.on)
	}
	return d
}

func someKind(r *rand.Rand) kind {
	switch r.IntN(3) {
	case 0:
		return underMonit
	case 1:
		return withLocks
	}
	return kind{fstype: fstypes[r.IntN(len(fstypes))], level: agent.LevelFreeze}
}

// moment is within about the time that a run takes.
func moment(r *rand.Rand, on kind) time.Duration {
	takes := 200 * time.Millisecond
	if on == underMonit {
		takes = 3 * time.Second
	}
	return time.Duration(1 + r.Int64N(int64(takes))).Round(time.Microsecond)
}

func firstStep(r *rand.Rand, on kind) step {
	if r.IntN(2) == 0 {
		if points := ofJobs[on.level]; len(points) > 0 && r.IntN(2) == 0 {
			return step{at: points[r.IntN(len(points))], fault: everyFault[r.IntN(len(everyFault))], who: daemon}
		}
		all := boundaries[r.IntN(len(boundaries))].cases()
		return all[r.IntN(len(all))]
	}
	return step{after: moment(r, on), fault: everyFault[r.IntN(len(everyFault))], who: someVictims(r)}
}

// nextStep comes soon after the first, or hits the recovery from it.
func nextStep(r *rand.Rand, on kind, first step) step {
	s := step{after: moment(r, on) / 4, fault: everyFault[r.IntN(len(everyFault))], who: someVictims(r)}
	if first.mortal() && r.IntN(2) == 0 {
		s.at, s.who = recoveryPoints[r.IntN(len(recoveryPoints))], daemon
	}
	return s
}

func someVictims(r *rand.Rand) victims {
	all := []victims{daemon, daemon, guardian, cpi, daemon | guardian, daemon | cpi, guardian | cpi, daemon | guardian | cpi}
	return all[r.IntN(len(all))]
}

// TestCampaign plays random runs. A failure names the seed that repeats it.
func TestCampaign(t *testing.T) {
	pool := newBeds(t)
	var played, failed, made, clean atomic.Int64
	t.Cleanup(func() {
		t.Logf("campaign: %d runs from seed %d on, %d failed; %d snapshots were made, %d of them clean",
			played.Load(), *seed, failed.Load(), made.Load(), clean.Load())
	})
	for i := range *campaign {
		one := *seed + uint64(i)
		d := draw(one)
		t.Run(fmt.Sprintf("%d: %s", one, d), func(t *testing.T) {
			t.Parallel()
			t.Cleanup(func() {
				played.Add(1)
				if t.Failed() {
					failed.Add(1)
					t.Logf("to repeat it: make campaign N=1 SEED=%d", one)
				}
			})
			pool.playDrawn(t, d, &made, &clean)
		})
	}
}

// playDrawn plays what was drawn and checks what must hold after.
func (p *beds) playDrawn(t *testing.T, d drawn, made, clean *atomic.Int64) {
	p.use(t, d.on, func(v *vm) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cancelled := after(d.cancel, func() { _ = v.client.Cancel(ctx, runID) })
		asked := after(d.second, func() { _, _ = v.client.Take(ctx, agent.Request{ID: "second", Level: d.on.level, Wait: true}) })
		if err := v.play(d.steps, d.steps[0].held()...); err != nil {
			return err
		}
		<-cancelled
		<-asked
		if err := v.idle(); err != nil {
			return err
		}
		snapshots, err := v.client.Snapshots(ctx)
		if err != nil {
			return err
		}
		for _, s := range snapshots {
			made.Add(1)
			if s.Clean {
				clean.Add(1)
			}
		}
		return v.check(d.unrecorded(), hardships{anything: true})
	})
}

// unrecorded says whether the run may have ended, or been refused because of
// another one, before its record was durable.
func (d drawn) unrecorded() bool {
	return d.cancel > 0 || d.second > 0 || slices.ContainsFunc(d.steps, step.early)
}

// after does something after a time, if there is one, and tells when that is done.
func after(d time.Duration, do func()) <-chan struct{} {
	done := make(chan struct{})
	if d == 0 {
		close(done)
		return done
	}
	time.AfterFunc(d, func() {
		defer close(done)
		do()
	})
	return done
}

// idle waits until no run is under way, nor one that waits.
func (v *vm) idle() error {
	free := 0
	return eventually("the daemon is idle", func() bool {
		s, err := v.status()
		free++
		if err != nil || s.Work != "" {
			free = 0
		}
		return free > 6
	})
}
