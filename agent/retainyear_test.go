package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/journal"
	"github.com/quiesced/quiesced/agent/schedule"
	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce"
	"github.com/quiesced/quiesced/quiesce/jobs"
)

// year is a VM in a year of synthetic time, with the real agent, journal, timekeeper and
// CPI client. The CPI is a script that deletes files, one for each snapshot.
type year struct {
	t     *testing.T
	rand  *rand.Rand
	dir   string
	made  []made
	store memory // of the timekeeper
	table agent.Timetable

	a        *agent.Agent // of the daemon that runs
	keep     *agent.Timekeeper
	records  *mortal
	end      context.CancelFunc
	loop     sync.WaitGroup
	applied  time.Time // when retention was
	cut      bool      // the daemon was killed since, and another has not applied it yet
	immortal bool      // nothing kills the daemon any more
	killed   int
	failed   int
}

// mortal is a journal whose daemon is killed right before or after one of its writes: what
// a dead daemon does has no effect any more.
type mortal struct {
	*journal.Journal
	cpi  string      // where the CPI finds that its daemon is dead
	lot  func() int  // draws what becomes of a write
	dead atomic.Bool // set when the daemon is killed
}

var errKilled = errors.New("the daemon was killed")

func (m *mortal) Write(c agent.Change) error {
	if m.dead.Load() {
		return errKilled
	}
	lot := m.lot()
	if lot == 0 {
		return m.kill()
	}
	err := m.Journal.Write(c)
	if lot == 1 {
		return errors.Join(err, m.kill())
	}
	return err
}

func (m *mortal) kill() error {
	m.dead.Store(true)
	return errors.Join(errKilled, os.WriteFile(filepath.Join(m.cpi, "dead"), nil, 0o600))
}

// yearCPI deletes snapshots. While the file "busy" is there it fails.
const yearCPI = `#!/bin/sh
cd '%s' || exit 1
read -r request
cid=${request#*'"arguments":["'}
cid=${cid%%%%\"*}
[ -e dead ] && exit 1
if [ -e busy ]; then
	echo '{"result":null,"error":{"type":"Bosh::Clouds::CloudError","message":"try later","ok_to_retry":true},"log":""}'
elif [ -e "snapshots/$cid" ]; then
	rm "snapshots/$cid"
	echo '{"result":null,"error":null,"log":""}'
else
	echo "{\"result\":null,\"error\":{\"type\":\"Bosh::Clouds::CloudError\",\"message\":\"snapshot '$cid' does not exist\",\"ok_to_retry\":false},\"log\":\"\"}"
fi
`

func startYear(t *testing.T, seed uint64) *year {
	t.Helper()
	y := &year{t: t, rand: rand.New(rand.NewPCG(seed, 0)), dir: t.TempDir()}
	y.must(unix.Mount("year", y.dir, "tmpfs", 0, "size=64m")) // where fsync costs nothing
	t.Cleanup(func() { _ = unix.Unmount(y.dir, unix.MNT_DETACH) })
	y.must(os.Mkdir(filepath.Join(y.dir, "snapshots"), 0o700))
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	y.must(os.WriteFile(filepath.Join(y.dir, "cpi"), fmt.Appendf(nil, yearCPI, y.dir), 0o700))
	const cron = "0 7 * * *"
	times, err := schedule.Parse(cron)
	y.must(err)
	y.table = agent.Timetable{Trigger: agent.TriggerScheduled, Cron: cron, Times: times, CatchUp: true}
	return y
}

func (y *year) must(err error) {
	y.t.Helper()
	if err != nil {
		y.t.Fatal(err)
	}
}

// boot starts a daemon on what the one before left.
func (y *year) boot() {
	y.t.Helper()
	y.must(os.RemoveAll(filepath.Join(y.dir, "dead")))
	j, err := journal.Open(filepath.Join(y.dir, "state"))
	y.must(err)
	y.records = &mortal{Journal: j, cpi: y.dir, lot: y.lot}
	y.a = agent.New(agent.Parts{
		Settings: agent.Settings{
			Enabled: true, StateDir: filepath.Join(y.dir, "state"), Keep: yearPolicies, GoneMessage: agent.GoneMessage,
			Disks:   []quiesce.Disk{{CID: "disk-1"}},
			Budgets: agent.Budgets{Snapshot: time.Minute},
		},
		Supervised: agent.Supervised{Scripts: &jobs.Runner{}, Held: journal.HeldFile{Path: filepath.Join(y.dir, "held.json")}},
		Journal:    y.records,
		Scratch:    journal.ScratchFile{Path: filepath.Join(y.dir, "scratch.json")},
		Freezer:    &quiesce.Freezer{},
		CPI:        &cpi.Client{Path: filepath.Join(y.dir, "cpi"), TempDir: y.dir},
		Observer:   agent.Observers{},
		Log:        slog.New(slog.DiscardHandler),
	})
	y.must(y.a.Recover(nil, nil))
	y.keep = &agent.Timekeeper{
		Tables: []agent.Timetable{y.table}, Store: &y.store, Log: slog.New(slog.DiscardHandler), Take: y.take,
		Idle: func() bool { work, _, _ := y.a.Now(); return work == "" && !y.records.dead.Load() },
	}
	y.keep.Start(time.Now())
	var ctx context.Context
	ctx, y.end = context.WithCancel(y.t.Context())
	y.loop.Go(func() { y.a.RetainOn(ctx) })
	synctest.Wait()
	y.keep.Tick(time.Now())
}

// halt ends the daemon, or removes what is left of a dead one.
func (y *year) halt() {
	y.t.Helper()
	y.end()
	y.loop.Wait()
	y.a.Close()
	y.must(y.records.Close())
}

// lot draws when the daemon is killed: 0 before a write, 1 after it.
func (y *year) lot() int {
	if y.immortal {
		return 2
	}
	return y.rand.IntN(100)
}

// settle lets everything end that is under way. If the daemon was killed meanwhile the next
// one is started.
func (y *year) settle() {
	y.t.Helper()
	for synctest.Wait(); y.records.dead.Load(); synctest.Wait() {
		y.cut = true
		y.killed++
		y.halt()
		y.boot()
	}
}

// take takes a snapshot. Now and then it is not clean, and in two months none is.
func (y *year) take(r agent.Request) error {
	month := time.Now().Month()
	r.Level = agent.LevelFreeze
	if y.rand.IntN(4) == 0 || month == time.May || month == time.June {
		r.Level = agent.LevelNone
	}
	return y.a.TakeFrom(r, func(dir string) string {
		if y.records.dead.Load() {
			return ""
		}
		y.applied, y.cut = time.Now(), false
		cid := y.snapshot(r.Trigger, r.Level.Clean(), false)
		y.must(os.MkdirAll(dir, 0o700))
		y.must(os.WriteFile(filepath.Join(dir, "stdout"), fmt.Appendf(nil, `{"result":%q,"error":null,"log":""}`, cid), 0o600))
		y.must(os.WriteFile(filepath.Join(dir, "stderr"), nil, 0o600))
		return cid
	})
}

// snapshot makes one.
func (y *year) snapshot(trigger agent.Trigger, clean, held bool) string {
	y.t.Helper()
	s := made{fmt.Sprintf("snap-%04d", len(y.made)), time.Now(), trigger, clean, held}
	y.made = append(y.made, s)
	y.must(os.WriteFile(filepath.Join(y.dir, "snapshots", s.cid), nil, 0o600))
	return s.cid
}

// hold is a director's snapshot, which the daemon gets to know of.
func (y *year) hold() {
	y.t.Helper()
	s := agent.Snapshot{
		DiskCID: "disk-1", State: agent.SnapshotKnown, Clean: true, Held: true, Trigger: agent.TriggerDirector,
		RunID: fmt.Sprint("hold-", len(y.made)), Created: time.Now(),
	}
	s.CID = y.snapshot(s.Trigger, true, true)
	for err := y.a.Record(agent.Change{Snapshots: []agent.Snapshot{s}}); err != nil; err = y.a.Record(agent.Change{Snapshots: []agent.Snapshot{s}}) {
		y.settle() // its holder tells of it until he is heard
	}
}

// until lets time pass up to an hour of the day that began at midnight.
func until(midnight time.Time, hour time.Duration) { time.Sleep(time.Until(midnight.Add(hour))) }

// TestYearOfScheduleAndRetention plays a year in which the daemon is killed again and again,
// deletions fail, and the VM is down for days. What is left at the end of each day is what a
// plain model says.
func TestYearOfScheduleAndRetention(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { startYear(t, 1).play() })
}

func (y *year) play() {
	y.boot()
	defer y.halt()
	exact := 0
	for end := time.Now().AddDate(1, 0, 0); time.Now().Before(end) && !y.t.Failed(); {
		midnight := time.Now().Truncate(24 * time.Hour)
		if y.day(midnight) { // else something is half done
			exact++
		}
		until(midnight, 24*time.Hour)
	}
	y.mustBeDone()
	y.t.Logf("%d snapshots, %d times killed, %d failures, %d of the days exact", len(y.made), y.killed, y.failed, exact)
	if y.killed < 12 || y.failed < 20 || len(y.made) < 365 || exact < 250 {
		y.t.Error("too little has happened")
	}
}

// mustBeDone checks that nothing is left half done once nothing goes wrong any more.
func (y *year) mustBeDone() {
	y.t.Helper()
	y.immortal = true
	y.must(y.a.Redelete(y.t.Context()))
	y.retain()
	y.settle()
	all, err := y.a.Snapshots()
	y.must(err)
	half := slices.ContainsFunc(all, func(s agent.Snapshot) bool { return s.State == agent.SnapshotDeleting })
	if !y.check() || half {
		y.t.Errorf("in the end there are %q, and known %+v", y.there(), all)
	}
}

// day plays a day, and says whether it ended as the model has it.
func (y *year) day(midnight time.Time) bool {
	y.t.Helper()
	if y.rand.IntN(40) == 0 { // the VM is down, maybe for days
		y.halt()
		time.Sleep(time.Duration(y.rand.IntN(72)) * time.Hour)
		y.boot()
		y.settle()
		return false
	}
	busy := filepath.Join(y.dir, "busy")
	if y.rand.IntN(8) == 0 {
		y.must(os.WriteFile(busy, nil, 0o600))
	}
	until(midnight, 7*time.Hour)
	y.keep.Tick(time.Now())
	y.settle()
	if y.rand.IntN(5) == 0 {
		until(midnight, 10*time.Hour)
		_ = y.take(agent.Request{ID: fmt.Sprint("manual-", len(y.made)), Trigger: agent.TriggerManual})
		y.settle()
	}
	if y.rand.IntN(30) == 0 {
		until(midnight, 11*time.Hour)
		y.hold()
		y.settle()
	}
	until(midnight, 12*time.Hour)
	_ = y.a.Redelete(y.t.Context())
	y.settle()
	if midnight.Weekday() == time.Sunday { // by a schedule, beside after each run
		until(midnight, 23*time.Hour)
		y.retain()
		y.settle()
	}
	y.must(os.RemoveAll(busy))
	return y.check()
}

func (y *year) retain() {
	y.applied, y.cut = time.Now(), false
	y.a.RetainSoon()
}

// check compares what is there, what the daemon knows, and what the model says. Where the
// daemon was killed while it took or deleted, there may be more.
func (y *year) check() bool {
	y.t.Helper()
	there, known, half := y.there(), []string{}, []string{}
	all, err := y.a.Snapshots()
	y.must(err)
	for _, s := range all {
		switch s.State {
		case agent.SnapshotKnown:
			known = append(known, s.CID)
		case agent.SnapshotDeleting:
			half = append(half, s.CID)
			if slices.Contains(there, s.CID) {
				y.failed++
			}
		}
	}
	want := y.left(y.applied)
	for _, cid := range there {
		if !slices.Contains(known, cid) && !slices.Contains(half, cid) {
			y.t.Errorf("%s: nobody knows of %s", time.Now(), cid)
		}
	}
	for _, cid := range known {
		if !slices.Contains(there, cid) {
			y.t.Errorf("%s: %s is known and gone", time.Now(), cid)
		}
		if !slices.Contains(want, cid) && !y.cut {
			y.t.Errorf("%s: %s is left", time.Now(), cid)
		}
	}
	for _, cid := range want {
		if !slices.Contains(there, cid) || !slices.Contains(known, cid) {
			y.t.Errorf("%s: %s was deleted", time.Now(), cid)
		}
	}
	return slices.Equal(there, want)
}

// there are the snapshots that are really there.
func (y *year) there() []string {
	y.t.Helper()
	files, err := os.ReadDir(filepath.Join(y.dir, "snapshots"))
	y.must(err)
	var found []string
	for _, f := range files {
		found = append(found, f.Name())
	}
	return found
}
