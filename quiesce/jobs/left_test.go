package jobs_test

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// left starts scripts in a daemon, and kills it once they are at work.
func (s *site) left(cmd *exec.Cmd, pids ...string) {
	s.t.Helper()
	must(s.t, cmd.Start())
	for _, name := range pids {
		endLater(s.t, s.pid(name))
	}
	must(s.t, cmd.Process.Kill())
	_ = cmd.Wait()
	for _, name := range pids {
		if !alive(s.pid(name)) {
			s.t.Fatalf("%s has ended with the daemon", name)
		}
	}
}

func (s *site) wantLeft(want ...jobs.Script) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	got, err := s.EndLeft(ctx)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		s.t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

const service = "setsid sh -c 'echo $$ > DIR/service; sleep 600' >/dev/null 2>&1 & until [ -s DIR/service ] || [ ! -e DIR ]; do sleep 0.05; done; "

func TestScriptsOfADeadDaemonAreEnded(t *testing.T) {
	s, other := newSite(t), newSite(t)
	a := s.script("a:b %", jobs.Lock, "echo $$ > DIR/a; setsid sh -c 'echo $$ > DIR/child; sleep 600'")
	b := s.script("b", jobs.Lock, "echo $$ > DIR/b; sleep 600")
	other.script("b", jobs.Lock, "echo $$ > DIR/b; sleep 600")
	s.script("c", jobs.PreStart, service)
	must(t, s.run(s.script("c", jobs.PreStart, service)))
	endLater(t, s.pid("service"))
	s.left(exec.Command(os.Args[0], "daemon", s.root, jobs.Lock), "a", "b", "child")
	other.left(exec.Command(os.Args[0], "daemon", other.root, jobs.Lock), "b")
	s.wantLeft(a, b)
	for _, name := range []string{"a", "b", "child"} {
		if alive(s.pid(name)) {
			t.Errorf("%s is alive", name)
		}
	}
	t.Run("and nothing else", func(t *testing.T) {
		if !alive(other.pid("b")) || !alive(s.pid("service")) {
			t.Error("that of another root, or the service of one that ended well, has ended")
		}
	})
	s.wantLeft()
	other.wantLeft(jobs.Script{Job: "b", Name: jobs.Lock, Path: other.root + "/jobs/b/bin/" + jobs.Lock})
}

func TestWhatAScriptHasStartedIsEndedAlsoIfItHasEndedItselfMeanwhile(t *testing.T) {
	s := newSite(t)
	a := s.script("a", jobs.Lock, service+"echo $$ > DIR/script; until [ -e DIR/end ] || [ ! -e DIR ]; do sleep 0.05; done")
	s.left(exec.Command(os.Args[0], "daemon", s.root, jobs.Lock), "script", "service")
	write(t, s.root+"/end", "")
	eventually(t, func() bool { return !alive(s.pid("script")) }, "the script does not end")
	s.wantLeft(a)
	if alive(s.pid("service")) {
		t.Error("it is alive")
	}
}

func TestControlGroupOfAScriptThatHasEndedMeanwhileIsRemoved(t *testing.T) {
	s := newSite(t)
	s.script("a", jobs.Lock, "echo $$ > DIR/script; until [ -e DIR/end ] || [ ! -e DIR ]; do sleep 0.05; done")
	s.left(exec.Command(os.Args[0], "daemon", s.root, jobs.Lock), "script")
	write(t, s.root+"/end", "")
	eventually(t, func() bool { return !alive(s.pid("script")) }, "the script does not end")
	if len(s.Layout.Cgroups()) != 1 {
		t.Fatalf("got %q", s.Layout.Cgroups())
	}
	s.wantLeft() // newSite sees to the rest
}

func TestScriptsOfADeadDaemonAreEndedWhereThereAreNoControlGroups(t *testing.T) {
	for name, how := range without {
		t.Run(name, func(t *testing.T) {
			s, other := newSite(t), newSite(t)
			a := s.script("a", jobs.Lock, service+"(echo $(sh -c 'echo $PPID') > DIR/child; sleep 600) & echo $$ > DIR/script; wait")
			other.script("a", jobs.Lock, "echo $$ > DIR/script; sleep 600")
			for _, one := range []*site{s, other} {
				pids := map[*site][]string{s: {"script", "child", "service"}, other: {"script"}}[one]
				one.left(withoutCgroups(t, how, os.Args[0], "daemon", one.root, jobs.Lock), pids...)
			}
			s.wantLeft(a)
			if alive(s.pid("script")) || alive(s.pid("child")) {
				t.Error("the script or its child is alive")
			}
			if !alive(s.pid("service")) || !alive(other.pid("script")) {
				t.Error("what leads a session of its own, or the script of another root, has ended")
			}
			s.wantLeft()
			other.wantLeft(jobs.Script{Job: "a", Name: jobs.Lock, Path: other.root + "/jobs/a/bin/" + jobs.Lock})
		})
	}
}
