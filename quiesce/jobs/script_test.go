package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

func TestScriptFindsTheEnvironmentThatBOSHGives(t *testing.T) {
	next := []string{"BOSH_VM_NEXT_STATE=keep", "BOSH_INSTANCE_NEXT_STATE=keep", "BOSH_DEPLOYMENT_NEXT_STATE=keep"}
	for name, variables := range map[string][]string{jobs.PreStop: next, jobs.PostStop: nil, jobs.PreSnapshot: nil} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			script := s.script("db", name, "") // a shell would add variables of its own
			must(t, os.Remove(script.Path))
			must(t, os.Symlink("/usr/bin/env", script.Path))
			must(t, s.run(script))
			got := strings.Split(s.read("sys/log/db/"+name[strings.LastIndex(name, "/")+1:]+".stdout.log"), "\n")
			mark := regexp.MustCompile(`^QUIESCED_SCRIPT=[0-9a-f]{8}:db:[a-z%2F-]+:cgroup$`)
			if !mark.MatchString(got[1]) {
				t.Errorf("got %q", got[1])
			}
			want := append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", got[1]}, append(variables, "")...)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestScriptIsStartedApartFromTheDaemon(t *testing.T) {
	s, ours := newSite(t), niceness(t)
	script := s.script("db", jobs.PreStop, `echo $#; pwd; cat; ps -o ni= -p $$; ps -o sid= -p $$ | tr -d ' '; echo $$`)
	must(t, s.run(script))
	got := strings.Fields(s.read("sys/log/db/pre-stop.stdout.log"))
	pid := got[len(got)-1]
	if diff := cmp.Diff([]string{"0", "/", fmt.Sprint(min(ours+5, 19)), pid, pid}, got); diff != "" {
		t.Errorf("arguments, directory, niceness, session: -want +got:\n%s", diff)
	}
}

func TestScriptNeverHasThePriorityOfTheDaemonWhichKeepsIt(t *testing.T) {
	s, ours := newSite(t), niceness(t)
	script := s.script("db", jobs.PreStop, "")
	must(t, os.Remove(script.Path))
	must(t, os.Symlink("/usr/bin/nice", script.Path)) // prints what it is started with
	must(t, s.Run(context.Background(), slices.Repeat([]jobs.Script{script}, 20), time.Minute, nil))
	want := strings.Repeat(fmt.Sprintln(min(ours+5, 19)), 20)
	if got := s.read("sys/log/db/pre-stop.stdout.log"); got != want {
		t.Errorf("got %q", got)
	}
	// The thread that starts a script ends with that, but not at once.
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		others := otherNiceness(t, ours)
		if len(others) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("threads of ours have niceness %v", others)
		}
	}
}

// otherNiceness is that of our threads which have another one than given.
func otherNiceness(t *testing.T, given int) []int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	must(t, err)
	var others []int
	for _, task := range tasks {
		tid, _ := strconv.Atoi(task.Name())
		if got, err := unix.Getpriority(unix.PRIO_PROCESS, tid); err == nil && 20-got != given {
			others = append(others, 20-got)
		}
	}
	return others
}

func niceness(t *testing.T) int {
	t.Helper()
	answer, err := unix.Getpriority(unix.PRIO_PROCESS, os.Getpid())
	must(t, err)
	return 20 - answer
}

func TestErrorSaysHowAScriptFailed(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"not at all":           {"echo fine >&2", ""},
		"with an exit status":  {"echo because >&2; exit 3", "exit status 3: because"},
		"by a signal":          {"kill -9 $$", "killed by signal 9"},
		"it hangs":             {"echo waiting >&2; sleep 600", "took longer than its budget (300ms) and was ended: waiting"},
		"it ignores SIGTERM":   {"trap '' TERM HUP INT; while :; do sleep 600; done", "took longer than its budget (300ms) and was ended"},
		"it stops itself":      {"kill -STOP $$", "took longer than its budget (300ms) and was ended"},
		"it has no output":     {"exec >&- 2>&-; exit 1", "exit status 1"},
		"it is not executable": {"CHMOD", "cannot be started: permission denied"},
		"no interpreter":       {"INTERPRETER", "cannot be started: no such file or directory"},
		"no program at all":    {"NONE", "cannot be started: exec format error"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			script := s.script("db", jobs.PreStop, c.text)
			switch c.text {
			case "CHMOD":
				must(t, os.Chmod(script.Path, 0o644))
			case "INTERPRETER":
				must(t, os.WriteFile(script.Path, []byte("#!/no/such\n"), 0o755))
			case "NONE":
				must(t, os.WriteFile(script.Path, nil, 0o755))
			}
			budget := 20 * time.Second
			if strings.Contains(c.want, "budget") {
				budget = 300 * time.Millisecond
			}
			err := s.Run(context.Background(), []jobs.Script{script}, budget, nil)
			if c.want == "" {
				s.wantError(err, "")
				return
			}
			s.wantError(err, `pre-stop of job "db" failed: `+c.want)
			if failed, ok := errors.AsType[*jobs.ScriptError](err); !ok || failed.Script != script {
				t.Errorf("got %#v", err)
			}
		})
	}
}

func TestScriptsEndWithTheContext(t *testing.T) {
	s := newSite(t)
	script := s.script("db", jobs.PreStop, "echo $$ > DIR/pid; sleep 600")
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		s.pid("pid")
		cancel(errors.New("asked to"))
	}()
	err := s.Run(ctx, []jobs.Script{script}, time.Minute, nil)
	s.wantError(err, `pre-stop of job "db" failed: was cancelled: asked to`)
	if alive(s.pid("pid")) {
		t.Error("it is alive")
	}
	t.Run("and are not begun after it", func(t *testing.T) {
		must(t, os.Remove(s.root+"/pid"))
		s.wantError(s.Run(ctx, []jobs.Script{script}, time.Minute, nil), `pre-stop of job "db" failed: was cancelled: asked to`)
		if _, err := os.Stat(s.root + "/pid"); !os.IsNotExist(err) {
			t.Errorf("it was run: %v", err)
		}
	})
}

func TestOthersAreNotEndedWithAScriptThatFails(t *testing.T) {
	s := newSite(t)
	all := []jobs.Script{
		s.script("a", jobs.PreStop, "exit 1"),
		s.script("b", jobs.PreStop, "sleep 0.5; touch DIR/done"),
		s.script("c", jobs.PreStop, "exit 2"),
	}
	err := s.Run(context.Background(), all, time.Minute, nil)
	s.wantError(err, "pre-stop of job \"a\" failed: exit status 1\npre-stop of job \"c\" failed: exit status 2")
	s.read("done")
}

// Each waits for all others.
func TestFiftyScriptsRunAtOnceAndAreToldOneAtATime(t *testing.T) {
	s := newSite(t)
	var all []jobs.Script
	for i := range 50 {
		all = append(all, s.script(fmt.Sprint("job-", i), jobs.PreStop, `echo > DIR/here-$$; until [ $(ls DIR | grep -c here) = 50 ] || [ ! -e DIR ]; do sleep 0.2; done`))
	}
	told := map[jobs.Script]string{} // the race detector sees two writers
	tell := func(script jobs.Script, done bool) { told[script] += fmt.Sprint(done, " ") }
	must(t, s.Run(context.Background(), all, time.Minute, tell))
	for _, script := range all {
		if told[script] != "false true " {
			t.Errorf("%s: told %q", script, told[script])
		}
	}
}
