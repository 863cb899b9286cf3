package agent_test

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/schedule"
)

// memory is kept in memory, and outlives its daemon.
type memory struct {
	handled map[agent.Trigger]agent.Handled
}

func (s *memory) Put(all map[agent.Trigger]agent.Handled) error {
	s.handled = maps.Clone(all)
	return nil
}

func (s *memory) Get() (map[agent.Trigger]agent.Handled, error) { return s.handled, nil }

// timedVM has the runs of a timekeeper.
type timedVM struct {
	t     *testing.T
	table agent.Timetable
	store *memory
	keep  *agent.Timekeeper
	taken []string // ids
	busy  bool
}

func newTimedVM(t *testing.T, cron string, change ...func(*agent.Timetable)) *timedVM {
	t.Helper()
	times, err := schedule.Parse(cron)
	if err != nil {
		t.Fatal(err)
	}
	v := &timedVM{t: t, store: &memory{}, table: agent.Timetable{Trigger: agent.TriggerScheduled, Cron: cron, Times: times}}
	for _, c := range change {
		c(&v.table)
	}
	return v
}

// boot starts the daemon.
func (v *timedVM) boot(now time.Time) {
	v.t.Helper()
	v.keep = &agent.Timekeeper{
		Tables: []agent.Timetable{v.table}, Store: v.store, Take: v.take,
		Idle: func() bool { return !v.busy }, Log: slog.New(slog.DiscardHandler),
	}
	v.keep.Start(now)
	v.keep.Tick(now)
}

func (v *timedVM) take(r agent.Request) error {
	if v.busy && !r.Wait {
		return &agent.BusyError{Work: "run other"}
	}
	if !slices.Contains(v.taken, r.ID) { // else it is joined
		v.taken = append(v.taken, r.ID)
	}
	return nil
}

func (v *timedVM) scheduled() agent.Scheduled { return v.keep.Scheduled()[0] }

var newYear = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestRunBeginsWhenItIsDueAndOnce(t *testing.T) {
	v := newTimedVM(t, "0 0 7 * * * UTC")
	v.boot(newYear)
	seven := newYear.Add(7 * time.Hour)
	for _, now := range []time.Time{seven.Add(-time.Second), seven, seven.Add(time.Second), seven.Add(-time.Hour), seven.Add(time.Minute)} {
		v.keep.Tick(now)
	}
	if len(v.taken) != 1 || v.taken[0] != "scheduled-20260101T070000Z" {
		t.Errorf("taken: %q", v.taken)
	}
	if s := v.scheduled(); !s.Last.Equal(seven) || !s.Next.Equal(seven.Add(24*time.Hour)) || s.Missed+s.Skipped != 0 {
		t.Errorf("it is told %+v", s)
	}
}

func TestRunIsDelayedByTheInstancesPartOfTheSplay(t *testing.T) {
	v := newTimedVM(t, "0 7 * * *", func(t *agent.Timetable) { t.Delay = 10 * time.Minute })
	v.boot(newYear)
	seven := newYear.Add(7 * time.Hour)
	v.keep.Tick(seven.Add(9 * time.Minute))
	if len(v.taken) != 0 || !v.scheduled().Next.Equal(seven.Add(10*time.Minute)) {
		t.Errorf("taken: %q, next %s", v.taken, v.scheduled().Next)
	}
	v.keep.Tick(seven.Add(10 * time.Minute))
	if len(v.taken) != 1 {
		t.Errorf("taken: %q", v.taken)
	}
}

func TestTimekeeperIsToBeWokenForEachTimeAndTwiceAMinute(t *testing.T) {
	v := newTimedVM(t, "0 7 * * *", func(t *agent.Timetable) { t.Delay = 10 * time.Second })
	v.boot(newYear)
	seven := newYear.Add(7*time.Hour + 10*time.Second)
	for now, want := range map[time.Time]time.Time{
		newYear:                        newYear.Add(30 * time.Second),
		seven.Add(-20 * time.Second):   seven,
		seven.Add(-time.Millisecond):   seven,
		seven:                          seven.Add(30 * time.Second),
		seven.Add(1 * time.Nanosecond): seven.Add(30*time.Second + time.Nanosecond),
	} {
		if got := v.keep.Next(now); !got.Equal(want) {
			t.Errorf("at %s it is woken at %s, want %s", now, got, want)
		}
	}
}

func TestRunsThatWereMissed(t *testing.T) {
	for _, test := range []struct {
		name    string
		catchUp bool
		taken   int
		missed  int
	}{
		{"are counted", false, 0, 3},
		{"are made up for once, if configured", true, 1, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := newTimedVM(t, "0 7 * * *", func(t *agent.Timetable) { t.CatchUp = test.catchUp })
			v.boot(newYear)
			later := newYear.Add(2*24*time.Hour + 12*time.Hour)
			v.boot(later)
			v.keep.Tick(later)
			v.keep.Tick(later.Add(time.Minute))
			if s := v.scheduled(); len(v.taken) != test.taken || s.Missed != test.missed {
				t.Errorf("taken: %q; %d missed", v.taken, s.Missed)
			}
		})
	}
}

func TestRunIsSkippedWhileOtherWorkHasTheVM(t *testing.T) {
	v := newTimedVM(t, "0 7 * * *")
	v.boot(newYear)
	v.busy = true
	seven := newYear.Add(7 * time.Hour)
	v.keep.Tick(seven)
	if !v.store.handled[agent.TriggerScheduled].Time.Equal(newYear) {
		t.Error("something was written while a run has the VM")
	}
	v.busy = false
	v.keep.Tick(seven.Add(time.Minute))
	if s := v.scheduled(); len(v.taken) != 0 || s.Skipped != 1 || s.Missed != 0 {
		t.Errorf("taken: %q; %+v", v.taken, s)
	}
	if !v.store.handled[agent.TriggerScheduled].Time.Equal(seven) {
		t.Error("what was dealt with is not written")
	}
}

func TestRunsOfEachMinuteThatWereTakenAreNotMissedAfterARestart(t *testing.T) {
	v := newTimedVM(t, "* * * * *")
	v.boot(newYear)
	v.keep.Take = func(r agent.Request) error {
		defer func() { v.busy = true }() // with that run
		return v.take(r)
	}
	now := newYear
	for now = v.keep.Next(now); now.Before(newYear.Add(time.Hour)); now = v.keep.Next(now) {
		v.busy = false // since the run before has ended
		v.keep.Tick(now)
	}
	v.busy = false
	v.boot(now)
	if s := v.scheduled(); len(v.taken) != 60 || s.Missed != 0 {
		t.Errorf("%d taken; %+v", len(v.taken), s)
	}
}

func TestRunThatIsMadeUpForWaitsForTheVM(t *testing.T) {
	v := newTimedVM(t, "0 7 * * *", func(t *agent.Timetable) { t.CatchUp = true })
	v.boot(newYear)
	v.busy = true // with what the daemon before left
	v.boot(newYear.Add(12 * time.Hour))
	if s := v.scheduled(); len(v.taken) != 1 || s.Skipped != 0 {
		t.Errorf("taken: %q; %+v", v.taken, s)
	}
}

func TestClockThatWasYearsAheadLosesNoDay(t *testing.T) {
	v := newTimedVM(t, "0 7 * * *")
	v.boot(newYear)
	v.keep.Tick(newYear.AddDate(70, 0, 0))
	for day := range 3 {
		v.keep.Tick(newYear.AddDate(0, 0, day).Add(6 * time.Hour))
		v.keep.Tick(newYear.AddDate(0, 0, day).Add(7 * time.Hour))
	}
	if !slices.Equal(v.taken, []string{"scheduled-20260101T070000Z", "scheduled-20260102T070000Z", "scheduled-20260103T070000Z"}) {
		t.Errorf("taken: %q", v.taken)
	}
}

// brokenStore is on a disk that is full and cannot be read.
type brokenStore struct{}

func (brokenStore) Put(map[agent.Trigger]agent.Handled) error { return errors.New("no space left") }
func (brokenStore) Get() (map[agent.Trigger]agent.Handled, error) {
	return nil, errors.New("input/output error")
}

func TestDiskInTroubleKeepsNobodyFromScheduledRuns(t *testing.T) {
	v := newTimedVM(t, "0 7 * * *")
	v.boot(newYear)
	v.keep.Store = brokenStore{}
	v.keep.Start(newYear)
	v.keep.Tick(newYear.Add(7 * time.Hour))
	v.keep.Tick(newYear.Add(7*time.Hour + time.Minute))
	if len(v.taken) != 1 {
		t.Errorf("taken: %q", v.taken)
	}
}

func TestScheduleThatWasChangedBeginsNow(t *testing.T) {
	v := newTimedVM(t, "0 7 * * *")
	v.boot(newYear)
	v.table.Cron, v.table.CatchUp = "0 8 * * *", true
	later := newYear.Add(40 * 24 * time.Hour)
	v.boot(later)
	v.keep.Tick(later)
	if s := v.scheduled(); len(v.taken) != 0 || s.Missed != 0 {
		t.Errorf("taken: %q; %+v", v.taken, s)
	}
}

func TestScheduleOfEverySecondThatWasDownForAYearIsCountedSoon(t *testing.T) {
	v := newTimedVM(t, "* * * * * *")
	v.boot(newYear)
	later := newYear.AddDate(1, 0, 0)
	v.boot(later)
	v.keep.Tick(later)
	v.keep.Tick(later.Add(time.Second))
	if s := v.scheduled(); s.Missed < 1000 || len(v.taken) == 0 || !s.Next.After(later) {
		t.Errorf("taken: %d; %+v", len(v.taken), s)
	}
}

// A year of a daemon that is killed, down and busy, and whose clock is set, against what
// its schedule says: every time was taken, missed or skipped, and none taken twice.
func TestYearOfASchedule(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 0))
			v := newTimedVM(t, "0 */6 * * * Europe/Berlin", func(t *agent.Timetable) { t.CatchUp = seed%2 == 0 })
			v.boot(newYear)
			now, boots, passedOver := newYear, 0, 0
			for end := newYear.AddDate(1, 0, 0); now.Before(end); v.keep.Tick(now) {
				switch step := r.IntN(10000); {
				case step == 0:
					passedOver += v.scheduled().Missed + v.scheduled().Skipped
					now = now.Add(time.Duration(r.IntN(48*60)) * time.Minute)
					v.boot(now)
					boots++
				case step < 20:
					v.busy = !v.busy
				case step < 40: // the clock is set back, and comes by again
					v.keep.Tick(now.Add(-time.Duration(r.IntN(7200)) * time.Second))
				default:
					now = now.Add(time.Minute)
				}
			}
			passedOver += v.scheduled().Missed + v.scheduled().Skipped
			times := v.check(now)
			if sum := len(v.taken) + passedOver; sum < times || sum > times+times/10 || boots == 0 || passedOver == 0 {
				t.Errorf("%d were taken and %d missed or skipped of %d, with %d boots", len(v.taken), passedOver, times, boots)
			}
		})
	}
}

// check wants times of the schedule alone among the runs, and returns how many there
// were.
func (v *timedVM) check(to time.Time) int {
	v.t.Helper()
	want := map[string]bool{}
	for at := v.table.Times.Next(newYear); !at.After(to); at = v.table.Times.Next(at) {
		want["scheduled-"+at.UTC().Format("20060102T150405Z")] = true
	}
	times := len(want)
	for _, id := range v.taken {
		if !want[id] {
			v.t.Errorf("%s was taken twice, or is no time of the schedule", id)
		}
		delete(want, id)
	}
	return times
}
