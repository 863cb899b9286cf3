package agent_test

import (
	"errors"
	"slices"
	"strings"
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
