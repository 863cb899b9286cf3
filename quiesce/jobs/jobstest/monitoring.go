package jobstest

import (
	"slices"
	"testing"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

func restartsItself(t *testing.T, bed Bed) {
	s := set(t, bed, Service{Name: "lasts"})
	s.kill("lasts")
	eventually(t, "it runs again", func() bool { return len(s.running("lasts")) > 0 })
	s.eventually("lasts", jobs.Running)
	must(t, s.sup.Unmonitor(s.within(long), s.names()))
	s.kill("lasts")
	if _, ok := bed.(Restarter); ok {
		eventually(t, "it runs again unmonitored", func() bool { return len(s.running("lasts")) > 0 })
		must(t, s.sup.Stop(s.within(long), s.all(), nil))
	}
	s.staysDown("lasts")
	must(t, s.sup.Monitor(s.within(long), s.names()))
	must(t, s.sup.Start(s.within(long), s.names(), nil))
	s.runs("lasts")
	s.kill("lasts")
	eventually(t, "it runs again after Monitor", func() bool { return len(s.running("lasts")) > 0 })
}

func unmonitorsAndMonitors(t *testing.T, bed Bed) {
	s := set(t, bed, Service{Name: "kept"})
	before := s.running("kept")
	for range 2 {
		must(t, s.sup.Unmonitor(s.within(long), s.names()))
		_, keeps := bed.(Restarter)
		if got := s.listed()["kept"]; got.Monitored != keeps {
			t.Errorf("after Unmonitor it is %+v", got)
		}
	}
	for range 2 {
		must(t, s.sup.Monitor(s.within(long), s.names()))
		s.eventually("kept", jobs.Running)
		if got := s.listed()["kept"]; !got.Monitored {
			t.Errorf("after Monitor it is %+v", got)
		}
	}
	if after := s.running("kept"); !slices.Equal(before, after) {
		t.Errorf("processes were %v, and are %v", before, after)
	}
}

// A release's jobs are unmonitored before they are drained, and stopped after
// that. What monit shows then has no pid any more.
func stopsUnmonitored(t *testing.T, bed Bed) {
	s := set(t, bed, Service{Name: "drained"})
	must(t, s.sup.Unmonitor(s.within(long), s.names()))
	must(t, bed.Supervisor().Stop(s.within(long), []jobs.Service{{Name: "drained"}}, nil))
	s.ended("drained")
	s.staysDown("drained")
	must(t, s.sup.Start(s.within(long), s.names(), nil))
	s.runs("drained")
	if got := s.listed()["drained"]; !got.Monitored {
		t.Errorf("after Start it is %+v", got)
	}
}
