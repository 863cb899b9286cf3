package jobstest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

func supervisorGone(t *testing.T, bed Bed) {
	s := set(t, bed, Service{Name: "orphan"})
	before, services := s.running("orphan"), s.all()
	bed.Cut(t)
	calls := map[string]func() error{
		"services":  func() error { _, err := s.sup.Services(s.within(long)); return err },
		"stop":      func() error { return s.sup.Stop(s.within(time.Second), services, nil) },
		"start":     func() error { return s.sup.Start(s.within(time.Second), s.names(), nil) },
		"monitor":   func() error { return s.sup.Monitor(s.within(time.Second), s.names()) },
		"unmonitor": func() error { return s.sup.Unmonitor(s.within(time.Second), s.names()) },
	}
	for name, call := range calls {
		begun := time.Now()
		if err := call(); !errors.Is(err, jobs.ErrUnreachable) {
			t.Errorf("%s answers %v", name, err)
		}
		if took := time.Since(begun); took > long/2 {
			t.Errorf("%s answers after %s", name, took)
		}
	}
	if after := s.running("orphan"); !slices.Equal(before, after) {
		t.Errorf("processes were %v, and are %v", before, after)
	}
	bed.Restore(t)
	eventually(t, "it is listed again", func() bool {
		_, err := s.sup.Services(s.within(long))
		return err == nil
	})
}

func supervisorComesBack(t *testing.T, bed Bed) {
	s := set(t, bed, Service{Name: "patient"})
	services := s.all()
	bed.Cut(t)
	done := s.beside(func() error { return s.sup.Stop(s.within(long), services, nil) })
	time.Sleep(500 * time.Millisecond) // it finds nobody a few times
	bed.Restore(t)
	must(t, <-done)
	s.ended("patient")
	bed.Cut(t)
	done = s.beside(func() error { return s.sup.Start(s.within(long), s.names(), nil) })
	time.Sleep(500 * time.Millisecond)
	bed.Restore(t)
	must(t, <-done)
	s.runs("patient")
}

func restartedDuringStop(t *testing.T, bed Bed) {
	s := set(t, bed, Service{Name: "cut-slow", StopTakes: 1500 * time.Millisecond}, Service{Name: "cut-stop"})
	services, begun := s.all(), make(chan bool, 100)
	done := s.beside(func() error {
		return s.sup.Stop(s.within(long), services, func(string, jobs.State) { begun <- true })
	})
	<-begun
	bed.Cut(t)
	time.Sleep(200 * time.Millisecond) // it is asked, and does not answer
	bed.Restore(t)
	must(t, <-done)
	s.ended(s.names()...)
	s.staysDown(s.names()...)
}

func restartedDuringStart(t *testing.T, bed Bed) {
	var services []Service
	for _, name := range []string{"cut-a", "cut-b", "cut-c", "cut-d"} {
		services = append(services, Service{Name: name})
	}
	s := set(t, bed, services...)
	must(t, s.sup.Stop(s.within(long), s.all(), nil))
	begun := make(chan bool, 100)
	done := s.beside(func() error {
		return s.sup.Start(s.within(long), s.names(), func(string, jobs.State) { begun <- true })
	})
	<-begun
	bed.Cut(t)
	time.Sleep(200 * time.Millisecond)
	bed.Restore(t)
	must(t, <-done)
	for _, name := range s.names() {
		s.runs(name)
	}
}
