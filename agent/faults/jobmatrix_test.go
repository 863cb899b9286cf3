package faults_test

import (
	"slices"
	"testing"

	"github.com/quiesced/quiesced/agent"
)

// freezing are the boundaries of the freeze within a run that holds jobs.
var freezing = func() (points []string) {
	from := slices.IndexFunc(boundaries, func(b boundary) bool { return b.point == "guard-ready" })
	to := slices.IndexFunc(boundaries, func(b boundary) bool { return b.point == "after-thaw" })
	for _, b := range boundaries[from : to+1] {
		points = append(points, b.point)
	}
	return points
}()

// stopping and locking are the boundaries of a run that holds jobs, in its order.
var (
	stopping = slices.Concat(
		[]string{
			"before-pre-stop", "pre-stopped", "before-drain", "unmonitored", "drained", "before-mark", "marking", "marked",
			"before-stop", "stopped", "before-post-stop", "post-stopped", "before-hook", "hooked",
		},
		freezing,
		[]string{
			"before-unhook", "unhook-unrecorded", "unhooked", "before-pre-start", "before-start", "start-unrecorded",
			"started", "unmarking", "unmarked", "before-post-start", "post-started",
		},
	)
	locking = slices.Concat(
		[]string{"before-lock", "locked", "before-hook", "hooked"},
		freezing,
		[]string{"before-unhook", "unhook-unrecorded", "unhooked", "before-unlock", "unlock-unrecorded", "unlocked"},
	)
)

// marked are the boundaries at which the services' mark is there.
var marked = stopping[slices.Index(stopping, "marked"):slices.Index(stopping, "unmarking")]

// ofJobs are the boundaries of a level that no run at another one comes to.
var ofJobs = map[agent.Level][]string{
	agent.LevelStop: slices.DeleteFunc(slices.Clone(stopping), inFreeze),
	agent.LevelLock: slices.DeleteFunc(slices.Clone(locking), inFreeze),
}

func inFreeze(point string) bool { return slices.Contains(freezing, point) }

// The kinds of bed for runs that hold jobs.
var (
	underMonit  = kind{fstype: "ext4", level: agent.LevelStop}
	withFailing = kind{fstype: "ext4", level: agent.LevelStop, failing: true}
	withLocks   = kind{fstype: "ext4", level: agent.LevelLock}
)

func TestMatrixOfJobs(t *testing.T) {
	pool := newBeds(t)
	for _, c := range []struct {
		fault  fault
		on     kind
		points []string
	}{
		{killed, underMonit, sampled(stopping)},
		{lost, underMonit, thinned(0, sampled(stopping))},
		{ended, underMonit, thinned(1, sampled(stopping))},
		{forgotten, underMonit, thinned(2, sampled(marked))},
		{killed, withFailing, []string{"unmonitored", "stopped", "start-unrecorded"}},
		{lost, withFailing, []string{"frozen"}},
		{ended, withFailing, []string{"frozen"}},
		{killed, withLocks, sampled(locking)},
		{lost, withLocks, thinned(0, sampled(locking))},
		{ended, withLocks, thinned(1, sampled(locking))},
	} {
		for _, point := range c.points {
			pool.playJobs(t, c.on, step{at: point, fault: c.fault, who: daemon})
		}
	}
}

// sampled leaves out most boundaries of the freeze: what is held of the jobs is the same at
// all of them, and what becomes of the freeze has a matrix of its own.
func sampled(points []string) []string {
	return slices.DeleteFunc(slices.Clone(points), func(point string) bool {
		return inFreeze(point) && !slices.Contains([]string{"guard-started", "cpi-made", "after-thaw"}, point)
	})
}

// thinned leaves out most of what differs little, for a run that has no time for all: with
// -thin 1, as make test-faults has it, nothing is.
func thinned[T any](from int, all []T) (some []T) {
	for i, one := range all {
		if i%*thin == from%*thin {
			some = append(some, one)
		}
	}
	return some
}

// TestMatrixOfRecoveries has the daemon killed again while it undoes what one before
// it left behind.
func TestMatrixOfRecoveries(t *testing.T) {
	pool := newBeds(t)
	for _, c := range []struct {
		on      kind
		first   string
		seconds []string
	}{
		{underMonit, "pre-stopped", []string{"before-post-start", "post-started"}},
		{underMonit, "unmonitored", []string{"marking", "before-stop-drained", "before-start", "unmarked"}},
		{underMonit, "frozen", thinned(0, stopping[slices.Index(stopping, "before-unhook"):])},
		{underMonit, "unmarking", []string{"before-start", "before-post-start"}},
		{withLocks, "locked", []string{"before-unlock", "unlock-unrecorded"}},
		{withLocks, "frozen", locking[slices.Index(locking, "before-unhook"):]},
		{withLocks, "unlocked", []string{"before-unlock", "unlock-unrecorded", "unlocked"}},
	} {
		for _, second := range c.seconds {
			pool.playJobs(t, c.on,
				step{at: c.first, fault: killed, who: daemon}, step{at: second, fault: killed, who: daemon, sure: true})
		}
	}
}

func (p *beds) playJobs(t *testing.T, k kind, steps ...step) {
	t.Helper()
	name := k.String() + ": " + steps[0].String()
	for _, s := range steps[1:] {
		name += ", " + s.String()
	}
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		p.play(t, k, steps)
	})
}

// hardshipsOf are what steps excuse.
func hardshipsOf(steps []step) (h hardships) {
	for _, s := range steps {
		h.markAlone = h.markAlone || s.fault == forgotten
		// Where the CPI is held that has answered, the daemon is not: it may be unlocking.
		h.unlocking = h.unlocking || s.mortal() && (s.at == "unlock-unrecorded" || s.at == "cpi-answered")
	}
	return h
}
