package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/quiesce/jobs"
)

func TestRunAtStopDoesEverythingInOrder(t *testing.T) {
	in := newInstance(t)
	report := in.take(agent.LevelStop)
	in.atRest(report, map[string]jobs.State{"db": jobs.Running, "proxy": jobs.Running}, "")
	if report.Outcome != agent.OutcomeSucceeded || !report.Clean || report.Reached != agent.LevelStop {
		t.Errorf("got %+v", report)
	}
	want := []string{
		"db pre-stop", "db drain", "db post-stop", "db quiesced/pre-snapshot", "db quiesced/post-snapshot", "db pre-start", "db post-start",
	}
	if got := in.scriptsRan(); !slices.Equal(got, want) {
		t.Errorf("ran %q, want %q", got, want)
	}
	if got, want := in.sup.began, []string{"unmonitor db proxy", "stop db proxy", "start db proxy"}; !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
	for _, phase := range []agent.Phase{agent.PhaseStop, agent.PhaseJobsDown, agent.PhaseFrozen} {
		if report.Phases[phase] <= 0 {
			t.Errorf("no time of phase %s", phase)
		}
	}
}

func TestJobsThatTheDirectorStoppedAreLeftSo(t *testing.T) {
	for _, level := range []agent.Level{agent.LevelLock, agent.LevelStop} {
		t.Run(string(level), func(t *testing.T) {
			in := newInstance(t)
			in.directorStops()
			report := in.take(level)
			in.atRest(report, map[string]jobs.State{"db": jobs.Stopped, "proxy": jobs.Stopped}, "director")
			if report.Outcome != agent.OutcomeSucceeded || !report.Clean || report.Reached != agent.LevelStop {
				t.Errorf("got %+v", report)
			}
			if len(in.sup.began) > 0 {
				t.Errorf("asked for %q", in.sup.began)
			}
		})
	}
}

func TestHooksAreNotRunWhileTheDirectorHasTheJobs(t *testing.T) {
	for name, has := range map[string]func(*instance){
		"since it stopped them":   (*instance).directorStops,
		"since they were yielded": func(in *instance) { in.must(in.Agent.Yield(t.Context())) },
	} {
		t.Run(name, func(t *testing.T) {
			in := newInstance(t)
			has(in)
			report := in.take(agent.LevelFreeze)
			if !report.Clean || len(in.scriptsRan()) > 0 {
				t.Errorf("ran %q; the report is %+v", in.scriptsRan(), report)
			}
		})
	}
}

func TestJobUpdateIsRecognisedWhileTheDirectorHasTheJobsToItself(t *testing.T) {
	in := newInstance(t)
	in.must(in.Agent.Yield(t.Context()))
	in.directorStops()
	report := in.take(agent.LevelStop)
	in.atRest(report, map[string]jobs.State{"db": jobs.Stopped, "proxy": jobs.Stopped}, "director")
	if report.Outcome != agent.OutcomeSucceeded || !report.Clean || report.Reached != agent.LevelStop {
		t.Errorf("got %+v", report)
	}
	if got := in.scriptsRan(); len(got) > 0 {
		t.Errorf("ran %q", got)
	}
}

func TestJobsAreHeldUntilTheCPIThatFreezesByItselfHasThePointInTime(t *testing.T) {
	in := newInstance(t, func(s *agent.Settings) { s.CPIFreezes = true })
	in.Hold(t, "snapshot_disk")
	run, err := in.Agent.Take(t.Context(), agent.Request{Level: agent.LevelStop})
	in.must(err)
	in.AwaitCall(t, "snapshot_disk", 1)
	time.Sleep(300 * time.Millisecond) // in which nothing may happen
	if got := in.sup.states(); got["db"] != jobs.Stopped || got["proxy"] != jobs.Stopped {
		t.Errorf("services are %v while the CPI is at work", got)
	}
	in.Release(t, "snapshot_disk")
	<-run.Done()
	report, _ := run.Report()
	in.atRest(report, map[string]jobs.State{"db": jobs.Running, "proxy": jobs.Running}, "")
	if !report.Clean || report.Reached != agent.LevelStop {
		t.Errorf("got %+v", report)
	}
}

func TestCancelledRunWhoseCPIFreezesByItselfIsNotClean(t *testing.T) {
	in := newInstance(t, func(s *agent.Settings) { s.CPIFreezes = true })
	in.Hold(t, "snapshot_disk")
	run, err := in.Agent.Take(t.Context(), agent.Request{Level: agent.LevelStop})
	in.must(err)
	in.AwaitCall(t, "snapshot_disk", 1)
	run.Cancel()
	<-run.Resumed()
	in.Release(t, "snapshot_disk")
	<-run.Done()
	report, _ := run.Report()
	in.atRest(report, map[string]jobs.State{"db": jobs.Running, "proxy": jobs.Running}, "")
	if report.Clean || report.Reached == agent.LevelStop {
		t.Errorf("got %+v", report)
	}
}

func TestServicesAreAfterARunAsTheyWereBefore(t *testing.T) {
	in := newInstance(t)
	in.sup.set(jobs.Stopped, "proxy")
	in.sup.set(jobs.Failing, "worker")
	report := in.take(agent.LevelStop)
	in.atRest(report, map[string]jobs.State{"db": jobs.Running, "proxy": jobs.Stopped, "worker": jobs.Failing}, "")
	want := []string{"unmonitor db worker", "stop db worker", "start db", "start worker"}
	if !slices.Equal(in.sup.began, want) {
		t.Errorf("asked for %q, want %q", in.sup.began, want)
	}
}

func TestJobsAreNotTouchedWhileOthersAreAtWorkOnThem(t *testing.T) {
	for name, c := range map[string]struct {
		there func(*instance)
		why   string
	}{
		"no services":            {func(in *instance) { in.sup.forget() }, "has no services of the jobs"},
		"services being started": {func(in *instance) { in.sup.set(jobs.Changing, "db") }, "is at work on db"},
		"the director starting":  {func(in *instance) { in.must(os.WriteFile(in.marker(), nil, 0o600)) }, "the director is starting or stopping"},
		"some services drained away": {func(in *instance) {
			in.sup.set(jobs.Unmonitored, "db")
			in.sup.set(jobs.Stopped, "proxy")
		}, "looks after none"},
		"services unmonitored":    {func(in *instance) { in.sup.set(jobs.Unmonitored, "db", "proxy") }, "looks after none"},
		"stopped by another run":  {func(in *instance) { in.must(jobs.Marker{Path: in.marker()}.Claim("other", nil)) }, `stopped by run "other"`},
		"BBR":                     {func(in *instance) { in.must(os.MkdirAll(filepath.Join(in.root, "store", "bbr-backup"), 0o700)) }, "BBR is at work"},
		"the director, by itself": {func(in *instance) { in.must(in.Agent.Yield(in.t.Context())) }, "quiesced yield"},
	} {
		t.Run(name, func(t *testing.T) {
			in := newInstance(t)
			in.script("db", jobs.Lock, "")
			c.there(in)
			before := in.sup.states()
			for _, level := range []agent.Level{agent.LevelStop, agent.LevelLock} {
				_, err := in.Agent.Plan(t.Context(), agent.Request{Level: level})
				if err == nil || !strings.Contains(err.Error(), c.why) {
					t.Errorf("level %s: %v, want %q", level, err, c.why)
				}
			}
			if _, err := in.Agent.Take(t.Context(), agent.Request{Level: agent.LevelStop}); err == nil {
				t.Error("level stop is not refused")
			}
			if got := in.scriptsRan(); len(got)+len(in.sup.began) > 0 {
				t.Errorf("ran %q, asked for %q", got, in.sup.began)
			}
			for name, want := range before {
				if got := in.sup.states()[name]; got != want {
					t.Errorf("%s is %s, was %s", name, got, want)
				}
			}
		})
	}
}

func TestCancelledWhileServicesStopTheyAreStartedAnew(t *testing.T) {
	in := newInstance(t)
	in.sup.slow.Store(true)
	run, err := in.Agent.Take(t.Context(), agent.Request{Level: agent.LevelStop})
	in.must(err)
	apitest.Eventually(t, "services are stopping", func() bool { return in.sup.states()["db"] == jobs.Changing })
	run.Cancel()
	<-run.Done()
	report, _ := run.Report()
	in.atRest(report, map[string]jobs.State{"db": jobs.Running, "proxy": jobs.Running}, "")
	if report.Outcome != agent.OutcomeCancelled {
		t.Errorf("got %+v", report)
	}
	want := []string{"db pre-stop", "db drain", "db pre-start", "db post-start"}
	if got := in.scriptsRan(); !slices.Equal(got, want) {
		t.Errorf("ran %q, want %q", got, want)
	}
	if got, want := in.sup.began, []string{"unmonitor db proxy", "stop db proxy", "start db proxy"}; !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
}

func TestServicesThatHadToBeKilledAreStartedAnew(t *testing.T) {
	in := newInstance(t)
	in.sup.kills.Store(true)
	report := in.take(agent.LevelStop)
	in.atRest(report, map[string]jobs.State{"db": jobs.Running, "proxy": jobs.Running}, "")
	if report.Outcome != agent.OutcomeFailed || report.Clean {
		t.Errorf("got %+v", report)
	}
	want := []string{"db pre-stop", "db drain", "db pre-start", "db post-start"}
	if got := in.scriptsRan(); !slices.Equal(got, want) {
		t.Errorf("ran %q, want %q", got, want)
	}
}

// full is where what is held can be kept for so many times.
type full struct {
	agent.HeldStore
	times int
}

func (f *full) Put(h agent.Held) error {
	if f.times--; f.times < 0 {
		return syscall.ENOSPC
	}
	return f.HeldStore.Put(h)
}

func TestWhatCannotBeRecordedIsNotDoneToJobs(t *testing.T) {
	for times, want := range []struct {
		scripts []string
		asked   []string
	}{
		{nil, nil},
		{[]string{"db pre-stop", "db post-start"}, nil},
		// What was drained, and runs on as the process that it was, would be stopped: these have none.
		{[]string{"db pre-stop", "db drain", "db post-start"}, []string{"unmonitor db proxy", "start db proxy"}},
	} {
		t.Run(fmt.Sprintf("after %d steps", times), func(t *testing.T) {
			in := newInstance(t)
			in.Agent.Held = &full{in.Agent.Held, times}
			report := in.take(agent.LevelStop)
			if report.Outcome != agent.OutcomeFailed || !strings.Contains(report.Error, "no space left") {
				t.Errorf("got %+v", report)
			}
			if got := in.scriptsRan(); !slices.Equal(got, want.scripts) {
				t.Errorf("ran %q, want %q", got, want.scripts)
			}
			if !slices.Equal(in.sup.began, want.asked) {
				t.Errorf("asked for %q, want %q", in.sup.began, want.asked)
			}
			in.atRest(report, map[string]jobs.State{"db": jobs.Running, "proxy": jobs.Running}, "")
		})
	}
}
