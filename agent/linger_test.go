package agent_test

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/quiesce"
	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// newTwoDisks is an instance with a second disk, disk-2.
func newTwoDisks(t *testing.T, change ...func(*agent.Settings)) *instance {
	t.Helper()
	second, err := loopfs.Make(t.TempDir(), "second", "ext4", 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = second.Close() })
	stop, err := loopfs.ThawAfter(second.Mount, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return newInstance(t, append([]func(*agent.Settings){func(s *agent.Settings) {
		s.Disks = append(s.Disks, quiesce.Disk{CID: "disk-2", Mounts: []string{second.Mount}})
		s.Budgets.Linger = time.Minute
	}}, change...)...)
}

// hold begins a hold of one disk at level stop and waits until it is at rest.
func (in *instance) hold(id, disk string) *agent.Run {
	in.t.Helper()
	run, err := in.Agent.Take(in.t.Context(), agent.Request{
		ID: id, Level: agent.LevelStop, Disks: []string{disk}, Lease: time.Minute, Wait: true,
	})
	in.must(err)
	select {
	case <-run.AtRest():
	case <-run.Done():
		report, _ := run.Report()
		in.t.Fatalf("the hold ended: %+v", report)
	}
	return run
}

// resume ends a hold with a snapshot.
func (in *instance) resume(id, disk string) agent.Report {
	in.t.Helper()
	report, err := in.Agent.ResumeHold(in.t.Context(), id, agent.HoldEnd{Snapshots: map[string]string{disk: "snap of " + disk}})
	in.must(err)
	return report
}

func (in *instance) down() bool { return in.sup.states()["db"] == jobs.Stopped }

func (in *instance) idle() {
	in.t.Helper()
	apitest.Eventually(in.t, "the daemon is idle", func() bool {
		s, err := in.Agent.Status()
		in.must(err)
		return s.Work == ""
	})
}

var running = map[string]jobs.State{"db": jobs.Running, "proxy": jobs.Running}

func TestJobsStayStoppedBetweenADirectorsCallsForOneInstance(t *testing.T) {
	in := newTwoDisks(t)
	first := in.hold("hold-1", apitest.DiskCID)
	one := in.resume("hold-1", apitest.DiskCID)
	if !in.down() || !one.Clean || !*one.Unbroken || one.Reached != agent.LevelStop {
		t.Errorf("down: %t; after the first disk: %+v", in.down(), one)
	}
	if _, err := in.Agent.Take(t.Context(), agent.Request{Level: agent.LevelNone}); !errors.As(err, new(*agent.BusyError)) {
		t.Errorf("a request that does not wait is told %v", err)
	}
	second := in.hold("hold-2", "disk-2")
	if !in.down() {
		t.Error("the jobs run for the second disk")
	}
	two := in.resume("hold-2", "disk-2")
	if !two.Clean || !*two.Unbroken || two.Reached != agent.LevelStop {
		t.Errorf("after the second disk: %+v", two)
	}
	<-first.Done()
	<-second.Done()
	in.idle()
	in.atRest(two, running, "")
	if n := strings.Count(strings.Join(in.scriptsRan(), "\n"), "db drain"); n != 1 {
		t.Errorf("drained %d times", n)
	}
	last, _ := second.Report()
	begun, _ := first.Report()
	if last.Phases[agent.PhaseJobsDown] == 0 || begun.Phases[agent.PhaseJobsDown] != 0 || begun.Phases[agent.PhaseLinger] == 0 {
		t.Errorf("jobs were down in %v and %v", begun.Phases, last.Phases)
	}
}

func TestJobsThatWaitForAnotherCallAreSetGoing(t *testing.T) {
	for _, test := range []struct {
		name string
		then func(*instance)
		want map[string]jobs.State
		mark string
	}{
		{"when none comes for some time", func(*instance) {}, running, ""},
		{"when another request comes", func(in *instance) {
			run, err := in.Agent.Take(t.Context(), agent.Request{Level: agent.LevelNone, Wait: true})
			in.must(err)
			<-run.Done()
		}, running, ""},
		{"when a disk is asked for again", func(in *instance) {
			in.hold("hold-9", apitest.DiskCID)
			in.resume("hold-9", apitest.DiskCID)
		}, running, ""},
		{"when the hold is cancelled", func(in *instance) {
			run, err := in.Agent.Find("hold-1")
			in.must(err)
			run.Cancel()
		}, running, ""},
		{"unless the director stops them", (*instance).directorStops, map[string]jobs.State{"db": jobs.Stopped, "proxy": jobs.Stopped}, "director"},
		{"unless the director starts them", (*instance).directorStarts, running, ""},
		{"unless they are yielded", func(in *instance) {
			in.must(in.Agent.Yield(in.t.Context()))
			in.directorStops()
			in.must(in.Agent.Unyield())
			in.again()
		}, map[string]jobs.State{"db": jobs.Stopped, "proxy": jobs.Stopped}, "director"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			in := newTwoDisks(t, func(s *agent.Settings) {
				if test.name == "when none comes for some time" || test.name == "when a disk is asked for again" {
					s.Budgets.Linger = 300 * time.Millisecond
				}
			})
			in.hold("hold-1", apitest.DiskCID)
			report := in.resume("hold-1", apitest.DiskCID)
			if !report.Clean || !in.down() {
				t.Errorf("down: %t; the report is %+v", in.down(), report)
			}
			test.then(in)
			in.idle()
			in.atRest(report, test.want, test.mark)
		})
	}
}

func TestJobsWaitForNoOtherCall(t *testing.T) {
	for name, end := range map[string]func(*instance){
		"where the instance has one disk": func(in *instance) { in.resume("hold-1", apitest.DiskCID) },
		"where the point in time was fixed long before": func(in *instance) {
			_, err := in.Agent.ResumeHold(in.t.Context(), "hold-1", agent.HoldEnd{})
			in.must(err)
			apitest.Eventually(in.t, "the jobs run", func() bool { return !in.down() })
			in.resume("hold-1", apitest.DiskCID)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := newInstance(t, func(s *agent.Settings) { s.Budgets.Linger = time.Hour })
			in.hold("hold-1", apitest.DiskCID)
			end(in)
			in.idle()
			report, err := in.Agent.ResumeHold(t.Context(), "hold-1", agent.HoldEnd{})
			in.must(err)
			in.atRest(report, running, "")
			if !report.Clean {
				t.Errorf("the report is %+v", report)
			}
		})
	}
}

func TestHoldOfAJobUpdateFreezesAlone(t *testing.T) {
	in := newInstance(t)
	in.directorStops()
	in.must(in.Agent.Yield(t.Context()))
	in.hold("hold-1", apitest.DiskCID)
	report := in.resume("hold-1", apitest.DiskCID)
	in.idle()
	in.atRest(report, map[string]jobs.State{"db": jobs.Stopped, "proxy": jobs.Stopped}, "director")
	if report.Reached != agent.LevelStop || !report.Clean || len(in.scriptsRan()) > 0 || len(in.sup.began) > 0 {
		t.Errorf("ran %q, asked for %q; the report is %+v", in.scriptsRan(), in.sup.began, report)
	}
}

func TestHoldUnderWhichTheDirectorActsIsBroken(t *testing.T) {
	in := newTwoDisks(t)
	in.hold("hold-1", apitest.DiskCID)
	in.directorStarts()
	apitest.Eventually(t, "it is seen", func() bool { return !isFrozen(in) })
	report := in.resume("hold-1", apitest.DiskCID)
	in.idle()
	in.atRest(report, running, "")
	if report.Clean || *report.Unbroken || report.Disks[0].SnapshotCID == "" {
		t.Errorf("the report is %+v", report)
	}
}

func isFrozen(in *instance) bool {
	s, err := in.Agent.Status()
	in.must(err)
	return s.Phase == agent.PhaseFrozen
}

// What a daemon knew of a hold when it ended is enough for the next one.
func TestHoldsAreKnownToTheNextDaemon(t *testing.T) {
	in := newTwoDisks(t)
	in.hold("hold-1", apitest.DiskCID)
	in.resume("hold-1", apitest.DiskCID)
	in.hold("hold-2", "disk-2")
	in.Restart(t)
	in.again()
	in.idle()
	one, err := in.Agent.ResumeHold(t.Context(), "hold-1", agent.HoldEnd{Snapshots: map[string]string{apitest.DiskCID: "snap of disk-1"}})
	in.must(err)
	two := in.resume("hold-2", "disk-2")
	in.atRest(two, running, "")
	if !one.Clean || !*one.Unbroken || two.Clean || *two.Unbroken {
		t.Errorf("the reports are %+v and %+v", one, two)
	}
	all, err := in.Agent.Snapshots()
	in.must(err)
	var cids []string
	for _, s := range all {
		cids = append(cids, s.CID)
	}
	slices.Sort(cids)
	if !slices.Equal(cids, []string{"snap of disk-1", "snap of disk-2"}) {
		t.Errorf("the catalogue has %q", cids)
	}
}

func TestHoldIsKnownWhenItsDiskWasDetachedSince(t *testing.T) {
	var detached atomic.Bool
	in := newInstance(t, func(s *agent.Settings) {
		disks := s.Disks
		s.Attached = func() ([]quiesce.Disk, error) {
			if detached.Load() {
				return nil, nil
			}
			return disks, nil
		}
	})
	first := in.hold("hold-1", apitest.DiskCID)
	in.resume("hold-1", apitest.DiskCID)
	detached.Store(true)
	again := agent.Request{ID: "hold-1", Level: agent.LevelStop, Disks: []string{apitest.DiskCID}, Lease: time.Minute, Wait: true}
	if run, err := in.Agent.Take(t.Context(), again); err != nil || run != first {
		t.Errorf("asked for again: %v", err)
	}
	again.ID = "hold-2"
	if _, err := in.Agent.Take(t.Context(), again); !errors.As(err, new(*agent.NotAttachedError)) {
		t.Errorf("another hold of the disk: %v", err)
	}
}

func TestHoldWhosePointInTimeWasToldIsCleanForTheNextDaemon(t *testing.T) {
	in := newInstance(t)
	run := in.hold("hold-1", apitest.DiskCID)
	_, err := in.Agent.ResumeHold(t.Context(), "hold-1", agent.HoldEnd{})
	in.must(err)
	apitest.Eventually(t, "its outcome alone is missing", func() bool { return run.Phase() == agent.PhaseSnapshot })
	in.Restart(t)
	in.idle()
	report := in.resume("hold-1", apitest.DiskCID)
	in.atRest(report, running, "")
	if !report.Clean || !*report.Unbroken || report.Reached != agent.LevelStop {
		t.Errorf("the report is %+v", report)
	}
}

func TestWhatAHolderSaysBeforeTheRestDoesNotCount(t *testing.T) {
	for name, test := range map[string]struct {
		before, want bool
	}{"before the lease": {true, false}, "within the lease": {false, true}} {
		t.Run(name, func(t *testing.T) {
			run, tell := agent.Hold(agent.Request{ID: "hold-1", Lease: time.Minute})
			end := agent.HoldEnd{Snapshots: map[string]string{"disk-1": "snap-1"}}
			if test.before {
				tell(end)
			}
			inTime := run.BeginLease()
			tell(end)
			if inTime() != test.want {
				t.Errorf("in time: %t", inTime())
			}
		})
	}
}

func TestJobsWaitNoLongerThanTheWorkThatHasTheVM(t *testing.T) {
	in := newInstance(t)
	in.hold("hold-1", apitest.DiskCID)
	in.must(in.Agent.Yield(t.Context()))
	in.idle()
	in.Hold(t, "snapshot_disk")
	run, err := in.Agent.Take(t.Context(), agent.Request{Level: agent.LevelNone})
	in.must(err)
	in.must(in.Agent.Unyield())
	time.AfterFunc(300*time.Millisecond, func() { in.Release(t, "snapshot_disk") }) // it was tried in vain
	in.again()
	<-run.Done()
	in.idle()
	in.atRest(agent.Report{}, running, "")
}

// A lock is gone with the process that the director has stopped.
func TestALockIsNotHandedOnOnceTheDirectorHasTheJobs(t *testing.T) {
	in := newTwoDisks(t)
	in.script("db", "bbr/pre-backup-lock", "")
	in.script("db", "bbr/post-backup-unlock", "")
	hold := func(id, disk string) *agent.Run {
		run, err := in.Agent.Take(t.Context(), agent.Request{ID: id, Level: agent.LevelLock, Disks: []string{disk}, Lease: time.Minute, Wait: true})
		in.must(err)
		select {
		case <-run.AtRest():
		case <-run.Done():
		}
		return run
	}
	hold("hold-1", apitest.DiskCID)
	if report := in.resume("hold-1", apitest.DiskCID); !report.Clean || report.Reached != agent.LevelLock {
		t.Errorf("the report is %+v", report)
	}
	in.directorStops()
	if report, ended := hold("hold-2", "disk-2").Report(); !ended || report.Outcome != agent.OutcomeFailed {
		t.Errorf("the second disk is held under a lock that is gone: ended %t, %+v", ended, report)
	}
	in.idle()
	in.atRest(agent.Report{}, map[string]jobs.State{"db": jobs.Stopped, "proxy": jobs.Stopped}, "director")
}

// The director takes the jobs in the very moment in which one hold hands them to the next.
func TestJobsAreYieldedBetweenTwoHolds(t *testing.T) {
	var in *instance
	asked := 0 // the disks were asked for
	yielded := make(chan error, 1)
	in = newTwoDisks(t, func(s *agent.Settings) {
		disks := s.Disks
		s.Attached = func() ([]quiesce.Disk, error) {
			if asked--; asked == 0 {
				go func() { yielded <- in.Agent.Yield(t.Context()) }()
				time.Sleep(300 * time.Millisecond) // it has cancelled the first
			}
			return disks, nil
		}
	})
	in.hold("hold-1", apitest.DiskCID)
	in.resume("hold-1", apitest.DiskCID)
	asked = 2 // by the request, and by the hand-over
	run, err := in.Agent.Take(t.Context(), agent.Request{ID: "hold-2", Level: agent.LevelStop, Disks: []string{"disk-2"}, Lease: time.Minute, Wait: true})
	in.must(err)
	in.must(<-yielded)
	select {
	case <-run.Resumed():
	default:
		t.Error("the director goes on and the second hold has the jobs")
		run.Cancel()
	}
	in.directorStops()
	in.must(in.Agent.Unyield())
	in.again() // be it that the second hold has the VM still
	in.idle()
	in.atRest(agent.Report{}, map[string]jobs.State{"db": jobs.Stopped, "proxy": jobs.Stopped}, "director")
}

func TestHoldThatLingersIsGoneOnWithByTheNextDaemon(t *testing.T) {
	in := newTwoDisks(t)
	in.hold("hold-1", apitest.DiskCID)
	in.resume("hold-1", apitest.DiskCID)
	in.Restart(t)
	in.again()
	in.idle()
	report := in.resume("hold-1", apitest.DiskCID)
	in.atRest(report, running, "")
	if !report.Clean || !*report.Unbroken || report.Disks[0].SnapshotCID != "snap of disk-1" {
		t.Errorf("the report is %+v", report)
	}
}

// AWS's CPI goes on for minutes after the point in time. What it made is recorded while
// jobs are still being set going.
func TestOutcomeIsRecordedWhileJobsAreSetGoing(t *testing.T) {
	in := newInstance(t)
	going := make(chan struct{})
	in.whileScript(jobs.PreStart, func() { <-going })
	in.hold("hold-1", apitest.DiskCID)
	first, err := in.Agent.ResumeHold(t.Context(), "hold-1", agent.HoldEnd{})
	in.must(err)
	report := in.resume("hold-1", apitest.DiskCID)
	if !in.down() || !*first.Unbroken || !report.Clean || report.Disks[0].SnapshotCID != "snap of disk-1" {
		t.Errorf("down: %t; the reports are %+v and %+v", in.down(), first, report)
	}
	all, err := in.Agent.Snapshots()
	in.must(err)
	if len(all) != 1 || all[0].CID != "snap of disk-1" || !all[0].Clean || all[0].State != agent.SnapshotKnown {
		t.Errorf("the catalogue is %+v", all)
	}
	close(going)
	in.idle()
	last := in.resume("hold-1", apitest.DiskCID)
	in.atRest(last, running, "")
	if all, err = in.Agent.Snapshots(); err != nil || len(all) != 1 || !all[0].Clean || !last.Clean {
		t.Errorf("in the end the catalogue is %+v, %v; the report is %+v", all, err, last)
	}
}

func TestHoldThatHoldsNothingIsUnbrokenFromItsFirstWord(t *testing.T) {
	in := newInstance(t)
	run, err := in.Agent.Take(t.Context(), agent.Request{ID: "hold-1", Level: agent.LevelSync, Disks: []string{apitest.DiskCID}, Lease: time.Minute})
	in.must(err)
	<-run.AtRest()
	first, err := in.Agent.ResumeHold(t.Context(), "hold-1", agent.HoldEnd{})
	in.must(err)
	last := in.resume("hold-1", apitest.DiskCID)
	if !*first.Unbroken || !*last.Unbroken || last.Clean || last.Reached != agent.LevelSync {
		t.Errorf("the reports are %+v and %+v", first, last)
	}
}
