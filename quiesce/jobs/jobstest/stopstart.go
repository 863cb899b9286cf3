package jobstest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// long is more than a supervisor needs for anything it is able to do.
const long = 60 * time.Second

// patience is enough for a supervisor to find out that a service does not do as it is
// told.
const patience = 2500 * time.Millisecond

func stops(t *testing.T, bed Bed) {
	s := set(t, bed, Service{Name: "stops-a"}, Service{Name: "stops-b"})
	var heard told
	must(t, s.sup.Stop(s.within(long), s.all(), heard.hear))
	s.ended(s.names()...)
	for name, service := range s.listed() {
		heard.last(t, name, jobs.Stopped)
		if service.State != jobs.Stopped || service.Monitored || len(service.Processes) != 0 {
			t.Errorf("a stopped service is %+v", service)
		}
	}
	s.staysDown(s.names()...)
}

func starts(t *testing.T, bed Bed) {
	s := set(t, bed, Service{Name: "starts-a"}, Service{Name: "starts-b"})
	must(t, s.sup.Stop(s.within(long), s.all(), nil))
	var heard told
	must(t, s.sup.Start(s.within(long), s.names(), heard.hear))
	for name, service := range s.listed() {
		s.runs(name)
		heard.last(t, name, jobs.Running)
		if service.State != jobs.Running || !service.Monitored || !slices.Equal(service.Processes, s.running(name)) {
			t.Errorf("a started service is %+v, its processes are %v", service, s.running(name))
		}
	}
}

func leavesAlone(t *testing.T, bed Bed) {
	s := set(t, bed, Service{Name: "alone"})
	before := s.running("alone")
	var heard told
	must(t, s.sup.Start(s.within(long), s.names(), heard.hear))
	must(t, s.sup.Monitor(s.within(long), s.names()))
	if after := s.running("alone"); !slices.Equal(before, after) {
		t.Errorf("processes were %v, and are %v", before, after)
	}
	running := s.all()
	must(t, s.sup.Stop(s.within(long), running, nil))
	must(t, s.sup.Stop(s.within(long), running, heard.hear))
	must(t, s.sup.Stop(s.within(long), s.all(), heard.hear))
	must(t, s.sup.Unmonitor(s.within(long), s.names()))
	s.ended("alone")
	if said := heard.of("alone"); slices.Contains(said, jobs.Running) {
		t.Errorf("of what was as asked for was told %v", said)
	}
}

func waitsForSlow(t *testing.T, bed Bed) {
	s := set(t, bed, Service{Name: "slow", StopTakes: 1500 * time.Millisecond})
	var heard told
	begun := time.Now()
	must(t, s.sup.Stop(s.within(long), s.all(), heard.hear))
	s.ended("slow")
	if took := time.Since(begun); took < 1500*time.Millisecond {
		t.Errorf("it stopped after %s: it was killed", took)
	}
	if said := heard.of("slow"); !slices.Equal(said, []jobs.State{jobs.Changing, jobs.Stopped}) {
		t.Errorf("was told %v", said)
	}
}

func waitsForChildren(t *testing.T, bed Bed) {
	s := set(t, bed, Service{Name: "parent", Children: 3, StopTakes: 1500 * time.Millisecond})
	eventually(t, "its processes are those that there are", func() bool {
		return slices.Equal(s.listed()["parent"].Processes, s.running("parent")) && len(s.running("parent")) >= 4
	})
	must(t, s.sup.Stop(s.within(long), s.all(), nil))
	s.ended("parent")
	must(t, s.sup.Start(s.within(long), s.names(), nil))
	eventually(t, "its children run again", func() bool { return len(s.running("parent")) >= 4 })
}

func doesNotStop(t *testing.T, bed Bed) {
	s := set(t, bed, Service{Name: "stays", IgnoresStop: true}, Service{Name: "stays-not"})
	before := s.all()
	var heard told
	ctx, cancel := context.WithCancel(s.within(long))
	defer cancel()
	done := s.beside(func() error { return s.sup.Stop(ctx, before, heard.hear) })
	eventually(t, "the other is stopped", func() bool { return slices.Contains(heard.of("stays-not"), jobs.Stopped) })
	time.Sleep(patience)
	cancel()
	err := <-done
	failed(t, err, "stop", jobs.ErrNotStopped, "stays")
	s.runs("stays")
	s.ended("stays-not")
	heard.last(t, "stays-not", jobs.Stopped)
	if slices.Contains(heard.of("stays"), jobs.Stopped) {
		t.Errorf("of a service that does not stop was told %v", heard.of("stays"))
	}
	s.kill("stays")
	must(t, s.sup.Stop(s.within(long), before, nil))
	s.staysDown(s.names()...)
}

func doesNotStart(t *testing.T, bed Bed) {
	s := set(t, bed, Service{Name: "broken", Broken: true}, Service{Name: "broken-not"})
	must(t, s.sup.Stop(s.within(long), s.all(), nil))
	var heard told
	ctx, cancel := context.WithCancel(s.within(long))
	defer cancel()
	done := s.beside(func() error { return s.sup.Start(ctx, s.names(), heard.hear) })
	eventually(t, "the other runs", func() bool { return slices.Contains(heard.of("broken-not"), jobs.Running) })
	time.Sleep(patience)
	cancel()
	err := <-done
	failed(t, err, "start", jobs.ErrNotRunning, "broken")
	s.runs("broken-not")
	heard.last(t, "broken-not", jobs.Running)
	if slices.Contains(heard.of("broken"), jobs.Running) {
		t.Errorf("of a service that does not start was told %v", heard.of("broken"))
	}
	s.services["broken"].Mend(t, bed.Dir())
	must(t, s.sup.Start(s.within(long), s.names(), nil))
	s.runs("broken")
}

func diesBeforeStop(t *testing.T, bed Bed) {
	s := set(t, bed, Service{Name: "killed"})
	before := s.all()
	s.kill("killed")
	must(t, s.sup.Stop(s.within(long), before, nil))
	s.staysDown("killed")
}

func diesDuringStop(t *testing.T, bed Bed) {
	s := set(t, bed, Service{Name: "dies", StopTakes: 30 * time.Second})
	before := s.all()
	done := s.beside(func() error { return s.sup.Stop(s.within(long), before, nil) })
	eventually(t, "it stops", func() bool { return s.listed()["dies"].State == jobs.Changing })
	s.kill("dies")
	must(t, <-done)
	s.staysDown("dies")
}

func diesBeforeStart(t *testing.T, bed Bed) {
	s := set(t, bed, Service{Name: "rises"})
	must(t, s.sup.Unmonitor(s.within(long), s.names()))
	s.kill("rises")
	must(t, s.sup.Start(s.within(long), s.names(), nil))
	s.runs("rises")
	s.kill("rises")
	must(t, s.sup.Start(s.within(long), s.names(), nil))
	s.runs("rises")
}

func many(t *testing.T, bed Bed) {
	var services []Service
	for i := range 12 {
		services = append(services, Service{Name: fmt.Sprintf("many-%02d", i), Children: i % 2})
	}
	s := set(t, bed, services...)
	var heard told
	must(t, s.sup.Stop(s.within(long), s.all(), heard.hear))
	s.ended(s.names()...)
	must(t, s.sup.Start(s.within(long), s.names(), heard.hear))
	for _, name := range s.names() {
		eventually(t, name+" runs", func() bool { return len(s.running(name)) > s.services[name].Children })
		heard.last(t, name, jobs.Running)
	}
}

func stopsTwice(t *testing.T, bed Bed) {
	s := set(t, bed, Service{Name: "twice", StopTakes: time.Second})
	before, other := s.all(), bed.Supervisor()
	done := s.beside(func() error { return other.Stop(s.within(long), before, nil) })
	must(t, s.sup.Stop(s.within(long), before, nil))
	s.ended("twice")
	must(t, <-done)
	s.staysDown("twice")
}

func unknownService(t *testing.T, bed Bed) {
	s := set(t, bed, Service{Name: "known"})
	const name = "nobodys"
	failed(t, s.sup.Unmonitor(s.within(long), s.names(name)), "unmonitor", jobs.ErrNoService, name)
	failed(t, s.sup.Monitor(s.within(long), s.names(name)), "monitor", jobs.ErrNoService, name)
	failed(t, s.sup.Stop(s.within(long), append(s.all(), jobs.Service{Name: name}), nil), "stop", jobs.ErrNoService, name)
	s.ended("known")
	failed(t, s.sup.Start(s.within(long), s.names(name), nil), "start", jobs.ErrNoService, name)
	s.runs("known")
}

// beside runs f beside the test, which receives what it returns.
func (s *scene) beside(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}
