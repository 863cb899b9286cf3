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
	"sync/atomic"
	"syscall"
	"testing"

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
	kills    atomic.Bool             // the next stop has to kill, as systemd does in the end
	slow     atomic.Bool             // the next stop takes until nobody waits for it any more
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

func (s *supervisor) Stop(ctx context.Context, services []jobs.Service, _ func(string, jobs.State)) error {
	var names []string
	for _, one := range services {
		names = append(names, one.Name)
	}
	if s.slow.CompareAndSwap(true, false) {
		s.set(jobs.Changing, names...)
		<-ctx.Done()
		return &jobs.ServiceError{Op: "stop", Service: names[0], Err: jobs.ErrNotStopped}
	}
	killed := s.act("stop", names, func(one *jobs.Service) { one.State, one.Monitored = jobs.Stopped, false })
	if s.kills.CompareAndSwap(true, false) {
		killed = &jobs.ServiceError{Op: "stop", Service: names[0], Err: jobs.ErrNotStopped}
	}
	return killed
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
