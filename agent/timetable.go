package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"
)

// Times says when something runs next after a time; the zero time is never again.
type Times interface {
	Next(after time.Time) time.Time
}

// Timetable is a schedule of runs.
type Timetable struct {
	Trigger Trigger // of its runs, of which there is one timetable each
	Cron    string
	Times   Times
	Delay   time.Duration // of each run: this instance's part of the splay
	CatchUp bool          // a run that was missed is made up for, once for all of them
}

// Handled is up to when a timetable's times are dealt with.
type Handled struct {
	Cron string
	Time time.Time
}

// HandledStore keeps what is dealt with across restarts.
type HandledStore interface {
	Put(map[Trigger]Handled) error
	Get() (map[Trigger]Handled, error)
}

// Scheduled is what a status tells of a timetable.
type Scheduled struct {
	Trigger Trigger
	Cron    string
	Next    time.Time // zero for never
	Last    time.Time // that was dealt with, zero for none since it was configured
	Missed  int       // since the daemon began: the daemon or the VM was down
	Skipped int       // since the daemon began: other work had the VM
}

// Timekeeper takes the snapshots of timetables. A run's id is made from its time, so that
// no time, whatever the clock does, has two of them.
type Timekeeper struct {
	Tables []Timetable
	Store  HandledStore
	Take   func(Request) error // begins a run, or says what is in its way
	Idle   func() bool         // nothing has the VM: what is dealt with may be written
	Log    *slog.Logger

	mu      sync.Mutex
	handled map[Trigger]Handled    // guarded by mu
	unsaved bool                   // guarded by mu
	told    map[Trigger]*Scheduled // guarded by mu: the counts
}

const (
	// onTime is how late a run may begin and not count as missed.
	onTime = 2 * time.Minute
	// ahead is how far what is dealt with may be ahead of the clock, which was set back
	// then. Beyond it the clock was wrong before, and what it had dealt with comes again:
	// runs that were taken are known by their ids.
	ahead = time.Hour
	// maxMissed bounds how many times are counted one by one.
	maxMissed = 10000
)

// Start reads what was dealt with before. A schedule that is new, or another than
// before, begins now, and so does one of which nothing can be read: a disk in trouble
// keeps nobody from the snapshots to come.
func (k *Timekeeper) Start(now time.Time) {
	before, err := k.Store.Get()
	if err != nil {
		k.Log.Error("cannot tell which scheduled runs were missed", "error", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.handled, k.told = map[Trigger]Handled{}, map[Trigger]*Scheduled{}
	for _, t := range k.Tables {
		h := before[t.Trigger]
		if h.Cron != t.Cron || h.Time.IsZero() {
			h = Handled{Cron: t.Cron, Time: now}
		}
		k.handled[t.Trigger], k.told[t.Trigger] = h, &Scheduled{}
	}
	k.unsaved = true // the first Tick writes it
}

// Tick begins what is due. What is dealt with is written when the VM is idle, since nothing
// is written while a run has it; should that be lost, the runs' ids are known.
func (k *Timekeeper) Tick(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.Tables {
		k.tick(t, now)
	}
	if !k.unsaved || !k.Idle() {
		return
	}
	if err := k.Store.Put(maps.Clone(k.handled)); err != nil {
		k.Log.Error("cannot record which scheduled runs are dealt with", "error", err)
		return
	}
	k.unsaved = false
}

// tick needs mu held.
func (k *Timekeeper) tick(t Timetable, now time.Time) {
	if handled := k.handled[t.Trigger].Time; handled.Sub(now) > ahead {
		k.Log.Warn("the clock was set back", "trigger", t.Trigger, "from", handled)
		k.handled[t.Trigger], k.unsaved = Handled{Cron: t.Cron, Time: now}, true
	}
	due, times := t.due(k.handled[t.Trigger].Time, now)
	if times == 0 {
		return
	}
	k.handled[t.Trigger], k.unsaved = Handled{Cron: t.Cron, Time: due}, true
	told := k.told[t.Trigger]
	told.Last = due
	missed := times - 1
	late := now.Sub(due.Add(t.Delay)) > onTime
	if late && !t.CatchUp {
		missed++
	}
	if missed > 0 {
		told.Missed += missed
		k.Log.Warn("scheduled runs were missed", "trigger", t.Trigger, "missed", missed)
	}
	if missed == times {
		return
	}
	err := k.Take(Request{ID: runAt(t.Trigger, due), Trigger: t.Trigger, By: "schedule " + t.Cron, Wait: late})
	switch {
	case errors.As(err, new(*BusyError)):
		told.Skipped++
		k.Log.Warn("a scheduled run was skipped", "trigger", t.Trigger, "error", err)
	case err != nil:
		k.Log.Error("a scheduled run did not begin", "trigger", t.Trigger, "error", err)
	}
}

// runAt is the id of the run of a time.
func runAt(t Trigger, at time.Time) string {
	return fmt.Sprintf("%s-%s", t, at.UTC().Format("20060102T150405Z"))
}

// due is the newest time that is due and not dealt with, and how many there are, of
// which no more than maxMissed are counted: then the newest is looked for from nearer by.
func (t Timetable) due(handled, now time.Time) (due time.Time, times int) {
	due, times = t.count(handled, now)
	const year = 366 * 24 * time.Hour
	for window, found := year, times; found == maxMissed && window > time.Minute; window /= 2 {
		if nearer := now.Add(-t.Delay - window); nearer.After(handled) {
			var newest time.Time
			if newest, found = t.count(nearer, now); found > 0 {
				due = newest
			}
		}
	}
	return due, times
}

func (t Timetable) count(after, now time.Time) (newest time.Time, times int) {
	for ; times < maxMissed; times++ {
		next := t.Times.Next(after)
		if next.IsZero() || next.Add(t.Delay).After(now) {
			break
		}
		newest, after = next, next
	}
	return newest, times
}

// Next is when Tick has something to do, at most a while after now: a clock that is
// set meanwhile is noticed by then, and what is dealt with is written between the runs of
// a schedule that has one each minute.
func (k *Timekeeper) Next(now time.Time) time.Time {
	const awhile = 30 * time.Second
	next := now.Add(awhile)
	for _, t := range k.Tables {
		due := t.Times.Next(now.Add(-t.Delay)) // what is due now already has its Tick
		if due = due.Add(t.Delay); due.After(now) && due.Before(next) {
			next = due
		}
	}
	return next
}

// Scheduled is what a status tells.
func (k *Timekeeper) Scheduled() []Scheduled {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []Scheduled
	for _, t := range k.Tables {
		s := Scheduled{}
		if told := k.told[t.Trigger]; told != nil { // since Start
			s = *told
		}
		s.Trigger, s.Cron = t.Trigger, t.Cron
		if h, started := k.handled[t.Trigger]; started {
			if next := t.Times.Next(h.Time); !next.IsZero() {
				s.Next = next.Add(t.Delay)
			}
		}
		all = append(all, s)
	}
	return all
}
