package monit_test

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/jobs/jobstest"
)

func TestMonitIsWokenAFewTimesForEachService(t *testing.T) {
	services := []jobstest.Service{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	b, c := serve(t, "", services...)
	woken := func() int {
		log, err := os.ReadFile(b.monit.Log())
		must(t, err)
		return bytes.Count(log, []byte("woke up on user request"))
	}
	all, err := c.Services(within(t, minute))
	must(t, err)
	before := woken()
	must(t, c.Stop(within(t, minute), all, nil))
	stopped := woken()
	must(t, c.Start(within(t, minute), []string{"a", "b", "c"}, nil))
	started := woken()
	for what, n := range map[string]int{"stop": stopped - before, "start": started - stopped} {
		if n == 0 || n > 9 {
			t.Errorf("to %s 3 services monit was woken %d times, want 1 to 9", what, n)
		}
	}
}

func TestPIDFileIsLookedForWhereAnotherMonitKeepsIt(t *testing.T) {
	b, c := serve(t, "", jobstest.Service{Name: "a"})
	unmonitored := func() []jobs.Process {
		must(t, c.Unmonitor(within(t, minute), []string{"a"}))
		all, err := c.Services(within(t, minute))
		must(t, err)
		return all[0].Processes
	}
	must(t, c.Stop(within(t, minute), []jobs.Service{{Name: "a"}}, nil))
	if found := unmonitored(); len(found) > 0 {
		t.Fatalf("stopped, it has %v", found)
	}
	rc, err := os.ReadFile(b.dir + "/monitrc")
	must(t, err)
	must(t, b.monit.Kill())
	must(t, os.WriteFile(b.dir+"/moved.pid", []byte(strconv.Itoa(os.Getpid())), 0o600))
	must(t, os.WriteFile(b.dir+"/monitrc", bytes.ReplaceAll(rc, []byte("/a.pid"), []byte("/moved.pid")), 0o600))
	must(t, b.monit.Restart())
	if found := unmonitored(); !slices.ContainsFunc(found, func(p jobs.Process) bool { return p.PID == os.Getpid() }) {
		t.Errorf("a process is in the pid file of now, and it has %v", found)
	}
}
