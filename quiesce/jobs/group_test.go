package jobs_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// started are the ways in which a script starts a process that writes its id to
// DIR/pid and would do something later.
var started = map[string]string{
	"a child":                                "(echo $(sh -c 'echo $PPID') > DIR/pid; sleep 8; touch DIR/late) &",
	"one in a session of its own":            "setsid sh -c 'echo $$ > DIR/pid; sleep 8; touch DIR/late' &",
	"one without parent, session or output":  "(setsid sh -c '(echo $(sh -c \"echo \\$PPID\") > DIR/pid; sleep 8; touch DIR/late) &' >/dev/null 2>&1 </dev/null &)",
	"one that ignores signals":               "setsid sh -c 'trap \"\" TERM HUP; echo $$ > DIR/pid; sleep 8; touch DIR/late' &",
	"one that has forgotten its environment": "setsid env -i sh -c 'echo $$ > DIR/pid; sleep 8; touch DIR/late' &",
}

const begun = "\nuntil [ -s DIR/pid ] || [ ! -e DIR ]; do sleep 0.05; done; "

func TestNothingOfAScriptHappensAfterItsBudget(t *testing.T) {
	for name, text := range started {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			script := s.script("db", jobs.PreStop, text+begun+"sleep 600")
			err := s.Run(context.Background(), []jobs.Script{script}, 2*time.Second, nil)
			s.wantError(err, `pre-stop of job "db" failed: took longer than its budget (2s) and was ended`)
			s.wantEnded()
		})
	}
	t.Run("not its success", func(t *testing.T) {
		s := newSite(t)
		script := s.script("db", jobs.PreStop, "echo $$ > DIR/pid; trap '' TERM; sleep 8; touch DIR/late; exit 0")
		err := s.Run(context.Background(), []jobs.Script{script}, 200*time.Millisecond, nil)
		s.wantError(err, `pre-stop of job "db" failed: took longer than its budget (200ms) and was ended`)
		s.wantEnded()
	})
}

func TestNothingOfAScriptHappensAfterItHasFailed(t *testing.T) {
	for name, text := range started {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			script := s.script("db", jobs.PreStop, text+begun+"exit 1")
			s.wantError(s.run(script), `pre-stop of job "db" failed: exit status 1`)
			s.wantEnded()
		})
	}
}

// wantEnded checks that the process of DIR/pid has ended before it did anything.
func (s *site) wantEnded() {
	s.t.Helper()
	if pid := s.pid("pid"); alive(pid) {
		s.t.Errorf("process %d is alive", pid)
	}
	if _, err := os.Stat(s.root + "/late"); err == nil {
		s.t.Error("it has done what it was to do later")
	}
}

func TestServiceThatAScriptHasStartedLivesOn(t *testing.T) {
	const service = "setsid sh -c 'echo $$ > DIR/pid; until [ -e DIR/speak ] || [ ! -e DIR ]; do sleep 0.05; done; echo speaking; echo $$ >DIR/spoke; sleep 600' &"
	t.Run("and its output is logged", func(t *testing.T) {
		s := newSite(t)
		must(t, s.run(s.script("db", jobs.PostStart, service+begun+"exit 0")))
		pid := s.pid("pid")
		endLater(t, pid)
		if got, ours := cgroupOf(t, pid), cgroupOf(t, os.Getpid()); got != ours {
			t.Errorf("its control group is %q and ours %q", got, ours)
		}
		write(t, s.root+"/speak", "")
		s.pid("spoke")
		if got := s.read("sys/log/db/post-start.stdout.log"); got != "speaking\n" || !alive(pid) {
			t.Errorf("alive: %v, log: %q", alive(pid), got)
		}
		found, err := s.EndLeft(context.Background())
		if len(found) > 0 || err != nil || !alive(pid) {
			t.Errorf("ended %v, %v", found, err)
		}
	})
	t.Run("and nobody waits for it where there is no log", func(t *testing.T) {
		s := newSite(t)
		must(t, s.run(s.script("", jobs.PreSnapshot, service+begun+"exit 0")))
		pid := s.pid("pid")
		endLater(t, pid)
		if !alive(pid) {
			t.Error("it has ended")
		}
	})
}

// withoutCgroups runs a command where no cgroup2 is to be seen, or none that can be
// written to.
func withoutCgroups(t *testing.T, how string, args ...string) *exec.Cmd {
	t.Helper()
	at, _ := jobs.CgroupMount()
	if at == "" {
		t.Fatal("there is no cgroup2 on this machine")
	}
	script := strings.ReplaceAll(how, "AT", at) + ` && exec "$@"`
	return exec.Command("unshare", append([]string{"-m", "--propagation", "private", "sh", "-c", script, "sh"}, args...)...)
}

var without = map[string]string{
	"no cgroup2":      "umount -l AT",
	"a read-only one": "mount -o remount,bind,ro AT",
}

func TestProcessGroupIsEndedWhereThereAreNoControlGroups(t *testing.T) {
	for name, how := range without {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.script("db", jobs.PreStop, started["a child"]+begun+"sleep 600")
			out, err := withoutCgroups(t, how, os.Args[0], "daemon", s.root, jobs.PreStop).CombinedOutput()
			want := `pre-stop of job "db" failed: took longer than its budget (2s) and was ended`
			if got := strings.TrimSpace(string(out)); err != nil || got != want {
				t.Errorf("got %q, %v", got, err)
			}
			eventually(t, func() bool { return !alive(s.pid("pid")) }, "the child is alive")
			s.wantEnded()
		})
	}
}
