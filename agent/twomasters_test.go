package agent_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/quiesce/jobs"
)

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
				in.must(in.Agent.Unyield())
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
