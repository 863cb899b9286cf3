package agent_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/quiesce"
	"github.com/quiesced/quiesced/quiesce/jobs"
)

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
