package jobstest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// Bed is a supervisor under test.
type Bed interface {
	// Dir is where services lie; they see it at the same path.
	Dir() string

	// Define has the supervisor know services beside those that it knows, monitored, and
	// asked to run. Its caller waits for them to run. They are forgotten, and their
	// processes ended, when t ends.
	Define(t testing.TB, services ...Service)

	// Supervisor is a new client.
	Supervisor() jobs.Supervisor

	// Cut ends the supervisor, or keeps it from being reached where it cannot be ended.
	// What it is doing is lost, if the supervisor is one that forgets; services go on.
	Cut(t testing.TB)

	// Restore undoes Cut. It does not wait for the supervisor to answer.
	Restore(t testing.TB)
}

// Restarter is a Bed whose supervisor goes on starting again what is unmonitored.
type Restarter interface{ RestartsUnmonitored() }

// scene is a bed with the services of one case.
type scene struct {
	testing.TB
	bed      Bed
	sup      jobs.Supervisor
	services map[string]Service
}

// set defines services and waits until those that can run are running.
func set(t testing.TB, bed Bed, services ...Service) *scene {
	t.Helper()
	s := &scene{TB: t, bed: bed, services: map[string]Service{}}
	for _, service := range services {
		s.services[service.Name] = service
	}
	bed.Define(t, services...)
	s.sup = bed.Supervisor()
	for name, service := range s.services {
		if !service.Broken {
			s.eventually(name, jobs.Running)
			// A supervisor may say so before the program knows what to do about SIGTERM.
			eventually(t, name+" has all its processes", func() bool { return len(s.running(name)) >= service.processes() })
		}
	}
	return s
}

// within is a context for what is expected to succeed.
func (s *scene) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(s.Context(), d)
	s.Cleanup(cancel)
	return ctx
}

// listed are those of the case's services that the supervisor lists.
func (s *scene) listed() map[string]jobs.Service {
	s.Helper()
	var all []jobs.Service
	var err error
	eventually(s, "the supervisor answers", func() bool { // it may be restarting
		all, err = s.sup.Services(s.within(20 * time.Second))
		return !errors.Is(err, jobs.ErrUnreachable)
	})
	if err != nil {
		s.Fatal(err)
	}
	if !slices.IsSortedFunc(all, func(a, b jobs.Service) int { return strings.Compare(a.Name, b.Name) }) {
		s.Errorf("services are not sorted: %v", all)
	}
	found := map[string]jobs.Service{}
	for _, service := range all {
		if _, ok := s.services[service.Name]; ok {
			found[service.Name] = service
		}
	}
	return found
}

// all lists the case's services for Stop.
func (s *scene) all() []jobs.Service {
	s.Helper()
	found := slices.Collect(maps.Values(s.listed()))
	if len(found) != len(s.services) {
		s.Fatalf("the supervisor lists %v of %d services", found, len(s.services))
	}
	return found
}

// names of the case's services, and more.
func (s *scene) names(more ...string) []string {
	return slices.AppendSeq(more, maps.Keys(s.services))
}

func (s *scene) running(name string) []jobs.Process {
	s.Helper()
	return s.services[name].Running(s, s.bed.Dir())
}

func (s *scene) kill(name string) {
	s.Helper()
	s.services[name].KillAll(s, s.bed.Dir())
}

// eventually waits until the supervisor says that a service is so.
func (s *scene) eventually(name string, state jobs.State) {
	s.Helper()
	eventually(s, name+" is "+string(state), func() bool { return s.listed()[name].State == state })
}

// runs asserts that a service runs, all its processes. They may not have come so far yet
// that they can be told for its own.
func (s *scene) runs(name string) {
	s.Helper()
	eventually(s, name+" has its processes", func() bool { return len(s.running(name)) >= 1+s.services[name].Children })
}

// ended asserts that no process of a service runs, now.
func (s *scene) ended(names ...string) {
	s.Helper()
	for _, name := range names {
		if left := s.running(name); len(left) != 0 {
			s.Errorf("processes of %q run: %v", name, left)
		}
	}
}

// staysDown asserts that nothing starts the services again, for longer than a
// supervisor's round takes.
func (s *scene) staysDown(names ...string) {
	s.Helper()
	for until := time.Now().Add(2500 * time.Millisecond); time.Now().Before(until) && !s.Failed(); {
		time.Sleep(50 * time.Millisecond)
		s.ended(names...)
	}
}
