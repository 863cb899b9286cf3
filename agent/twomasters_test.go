package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/quiesce/jobs"
)

// supervisor stands in for monit where what matters is the very moment at which
// somebody else acts, which no real one can be made to show.
type supervisor struct {
	mu       sync.Mutex
	services map[string]jobs.Service // guarded by mu
	broken   []string                // guarded by mu: services that fail whenever they are to run
	began    []string                // guarded by mu: what was asked for
	during   func(moment string)     // called before and after each of ours takes effect
}

func newSupervisor(names ...string) *supervisor {
	s := &supervisor{services: map[string]jobs.Service{}, during: func(string) {}}
	s.set(jobs.Running, names...)
	return s
}

func (s *supervisor) String() string { return "the test's supervisor" }

// set has services be in a state, as somebody else would.
func (s *supervisor) set(state jobs.State, names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if state == jobs.Failing {
			s.broken = append(s.broken, name)
		}
		s.services[name] = jobs.Service{Name: name, State: state, Monitored: state != jobs.Stopped && state != jobs.Unmonitored}
	}
}

// forget drops all services, as a director's apply does.
func (s *supervisor) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.services = map[string]jobs.Service{}
}

func (s *supervisor) states() map[string]jobs.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]jobs.State{}
	for name, one := range s.services {
		all[name] = one.State
	}
	return all
}

func (s *supervisor) Services(context.Context) ([]jobs.Service, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []jobs.Service
	for _, one := range s.services {
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b jobs.Service) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func (s *supervisor) act(op string, names []string, change func(*jobs.Service)) error {
	s.during("before " + op)
	s.mu.Lock()
	s.began = append(s.began, op+" "+strings.Join(names, " "))
	var missing error
	for _, name := range names {
		one, ok := s.services[name]
		if !ok {
			missing = &jobs.ServiceError{Op: op, Service: name, Err: jobs.ErrNoService}
			continue
		}
		change(&one)
		s.services[name] = one
	}
	s.mu.Unlock()
	s.during("after " + op)
	return missing
}

func (s *supervisor) Unmonitor(_ context.Context, names []string) error {
	return s.act("unmonitor", names, func(one *jobs.Service) { one.Monitored = false })
}

func (s *supervisor) Monitor(_ context.Context, names []string) error {
	return s.act("monitor", names, func(one *jobs.Service) { one.Monitored = true })
}

func (s *supervisor) Stop(_ context.Context, services []jobs.Service, _ func(string, jobs.State)) error {
	var names []string
	for _, one := range services {
		names = append(names, one.Name)
	}
	return s.act("stop", names, func(one *jobs.Service) { one.State, one.Monitored = jobs.Stopped, false })
}

func (s *supervisor) Start(_ context.Context, names []string, _ func(string, jobs.State)) error {
	var failed error
	return errors.Join(s.act("start", names, func(one *jobs.Service) {
		one.State, one.Monitored = jobs.Running, true
		if slices.Contains(s.broken, one.Name) {
			one.State = jobs.Failing
			failed = &jobs.ServiceError{Op: "start", Service: one.Name, Err: jobs.ErrNotRunning}
		}
	}), failed)
}

// instance is an instance with two services and a job that has every script; the
// scripts wait for nothing, and tell of themselves in a file.
type instance struct {
	*apitest.Daemon
	t    *testing.T
	sup  *supervisor
	root string
}

func newInstance(t *testing.T, change ...func(*agent.Settings)) *instance {
	t.Helper()
	in := &instance{t: t, sup: newSupervisor("db", "proxy"), root: t.TempDir()}
	in.must(os.MkdirAll(filepath.Join(in.root, "monit"), 0o755))
	for _, name := range []string{jobs.PreStop, jobs.PostStop, jobs.PreStart, jobs.PostStart, jobs.PreSnapshot, jobs.PostSnapshot} {
		in.script("db", name, "")
	}
	in.script("db", jobs.Drain, "echo 0")
	in.Daemon = apitest.StartSupervised(t, in.sup, append([]func(*agent.Settings){func(s *agent.Settings) {
		s.Processes = agent.Processes{Layout: jobs.Layout{Root: in.root, Own: "quiesced"}, Stopped: in.marker()}
	}}, change...)...)
	return in
}

func (in *instance) must(err error) {
	in.t.Helper()
	if err != nil {
		in.t.Fatal(err)
	}
}

func (in *instance) marker() string { return filepath.Join(in.root, "monit", "stopped") }

// script makes a script that notes that it ran, and then does what body says.
func (in *instance) script(job, name, body string) {
	in.t.Helper()
	path := filepath.Join(in.root, "jobs", job, "bin", name)
	in.must(os.MkdirAll(filepath.Dir(path), 0o755))
	text := fmt.Sprintf("#!/bin/sh\necho '%s %s' >> '%s'\n%s\n", job, name, in.ran(), body)
	// A child that another test forks meanwhile would have the file open for writing
	// still, and nobody could execute it.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	in.must(os.WriteFile(path, []byte(text), 0o755))
}

func (in *instance) ran() string { return filepath.Join(in.root, "ran") }

// scriptsRan are the scripts that ran, in order.
func (in *instance) scriptsRan() []string {
	text, _ := os.ReadFile(in.ran())
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

// take takes a snapshot at a level and waits for its report.
func (in *instance) take(level agent.Level) agent.Report {
	in.t.Helper()
	run, err := in.Agent.Take(in.t.Context(), agent.Request{Level: level})
	in.must(err)
	<-run.Done()
	report, _ := run.Report()
	return report
}

// marked says whether the services are marked as stopped, and how.
func (in *instance) marked() string {
	in.t.Helper()
	mark, err := jobs.Marker{Path: in.marker()}.Read()
	in.must(err)
	return string(mark.Owner)
}

// The director's requests, as bosh-agent carries them out.
func (in *instance) directorStops() {
	in.sup.set(jobs.Stopped, "db", "proxy")
	in.must(os.WriteFile(in.marker(), nil, 0o644))
}

func (in *instance) directorStarts() {
	in.sup.set(jobs.Running, "db", "proxy")
	in.must(os.RemoveAll(in.marker()))
}

func (in *instance) directorApplies() {
	in.sup.forget()
}

// moments are those at which the director may act: during each script, and around
// each of our own calls.
var moments = []string{
	jobs.PreStop, "before unmonitor", "after unmonitor", jobs.Drain, "before stop", "after stop", jobs.PostStop, jobs.PreSnapshot,
	"frozen", jobs.PostSnapshot, jobs.PreStart, "before start", "after start", jobs.PostStart,
}

// at has the director act at a moment of the run, once.
func (in *instance) at(moment string, act func()) {
	var once sync.Once
	switch {
	case moment == "frozen":
		in.Hold(in.t, "snapshot_disk")
		go func() {
			in.AwaitCall(in.t, "snapshot_disk", 1)
			act()
			in.Release(in.t, "snapshot_disk")
		}()
		return
	case !strings.Contains(moment, " "):
		in.whileScript(moment, act)
		return
	}
	in.sup.during = func(now string) {
		if now == moment {
			once.Do(act)
		}
	}
}

// whileScript acts while the script of job db is at work.
func (in *instance) whileScript(name string, act func()) {
	at := filepath.Join(in.root, "at-work")
	in.script("db", name, fmt.Sprintf("touch '%[1]s'; while [ -e '%[1]s' ]; do sleep 0.01; done; echo 0", at))
	go func() {
		for in.t.Context().Err() == nil {
			if _, err := os.Stat(at); err == nil {
				act()
				_ = os.Remove(at)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
}

func TestDirectorsStopStandsWheneverItComes(t *testing.T) {
	for _, moment := range moments {
		t.Run(moment, func(t *testing.T) {
			t.Parallel()
			in := newInstance(t)
			in.at(moment, in.directorStops)
			report := in.take(agent.LevelStop)
			in.atRest(report, map[string]jobs.State{"db": jobs.Stopped, "proxy": jobs.Stopped}, "director")
		})
	}
}

func TestDirectorsStartStandsWheneverItComes(t *testing.T) {
	for _, moment := range moments {
		t.Run(moment, func(t *testing.T) {
			t.Parallel()
			in := newInstance(t)
			in.at(moment, in.directorStarts)
			report := in.take(agent.LevelStop)
			in.atRest(report, map[string]jobs.State{"db": jobs.Running, "proxy": jobs.Running}, "")
			if slices.Contains([]string{"after stop", jobs.PostStop, jobs.PreSnapshot, "frozen"}, moment) {
				if report.Clean || report.Reached == agent.LevelStop {
					t.Errorf("jobs were started meanwhile: clean %t, reached %s", report.Clean, report.Reached)
				}
			}
		})
	}
}

// atRest checks that services are as they should be, and that nothing is held.
func (in *instance) atRest(report agent.Report, services map[string]jobs.State, marked string) {
	in.t.Helper()
	for name, want := range services {
		if got := in.sup.states()[name]; got != want {
			in.t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if got := in.marked(); got != marked {
		in.t.Errorf("marked by %q, want %q", got, marked)
	}
	if left := in.Agent.NotGoing(); len(left) > 0 {
		in.t.Errorf("still held: %q", left)
	}
	if report.Outcome == agent.OutcomeNotResumed {
		in.t.Errorf("the report says that something is held: %s", report.Error)
	}
	if in.t.Failed() {
		in.t.Logf("asked for: %q\nran: %q\nreport: %+v", in.sup.began, in.scriptsRan(), report)
	}
}

func TestJobsAreYieldedAtEveryMoment(t *testing.T) {
	for _, moment := range moments {
		for name, then := range map[string]func(*instance) map[string]jobs.State{
			"and the director stops and starts them": func(in *instance) map[string]jobs.State {
				in.directorStops()
				in.directorStarts()
				return map[string]jobs.State{"db": jobs.Running, "proxy": jobs.Running}
			},
			"and the director leaves them stopped": func(in *instance) map[string]jobs.State {
				in.directorStops()
				return map[string]jobs.State{"db": jobs.Stopped, "proxy": jobs.Stopped}
			},
			"and the director fails before it does anything": func(*instance) map[string]jobs.State {
				return map[string]jobs.State{"db": jobs.Running, "proxy": jobs.Running}
			},
		} {
			t.Run(moment+" "+name, func(t *testing.T) {
				t.Parallel()
				in := newInstance(t)
				yielded := make(chan error, 1)
				in.at(moment, func() {
					go func() { yielded <- in.Agent.Yield(t.Context()) }()
					apitest.Eventually(t, "the director is known to have the jobs", func() bool {
						s, err := in.Agent.Status()
						return err == nil && !s.Yielded.IsZero()
					})
				})
				in.take(agent.LevelStop)
				in.must(<-yielded)
				asked := len(in.sup.began)
				want := then(in)
				marked := map[bool]string{true: "director"}[want["db"] == jobs.Stopped]
				if len(in.sup.began) != asked {
					t.Errorf("asked for %q while the director has the jobs", in.sup.began[asked:])
				}
				in.must(in.Agent.Unyield(t.Context()))
				in.again()
				in.atRest(agent.Report{}, want, marked)
			})
		}
	}
}

// again has the agent's run loop try again what is held.
func (in *instance) again() {
	ctx, cancel := context.WithCancel(in.t.Context())
	ended := make(chan struct{})
	go func() { in.Agent.Run(ctx); close(ended) }()
	apitest.Eventually(in.t, "nothing is held any more", func() bool { return len(in.Agent.NotGoing()) == 0 })
	cancel()
	<-ended
}

func TestServicesOfADirectorsApplyAreLeftToIt(t *testing.T) {
	in := newInstance(t)
	in.at("after stop", func() {
		in.directorApplies()
		go func() { // and puts new ones in place a little later, without proxy
			apitest.Eventually(t, "the disk is snapshotted or given up", func() bool { return in.Agent.Resuming() })
			in.sup.set(jobs.Running, "db")
			in.must(os.RemoveAll(in.marker()))
		}()
	})
	report := in.take(agent.LevelStop)
	in.atRest(report, map[string]jobs.State{"db": jobs.Running, "proxy": ""}, "")
	for _, asked := range in.sup.began {
		if strings.HasPrefix(asked, "start") {
			t.Errorf("we started what the director had applied: %s", asked)
		}
	}
}

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
