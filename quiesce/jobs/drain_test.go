package jobs_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

func (s *site) drain(budget time.Duration, scripts ...jobs.Script) error {
	return s.Drain(context.Background(), scripts, budget, nil)
}

// called has a drain script write down how it is called, each time.
const called = `echo "$*" "$BOSH_JOB_STATE" "$BOSH_JOB_NEXT_STATE" >> DIR/called; `

func TestDrainScriptIsCalledUntilItSaysThatTheJobIsDrained(t *testing.T) {
	const first, again = "job_shutdown hash_unchanged STATE STATE\n", "job_check_status hash_unchanged STATE STATE\n"
	for name, c := range map[string]struct {
		text, spec, state, called string
		atLeast                   time.Duration
	}{
		"at once":                    {"echo 0", "", `{"persistent_disk":0}`, first, 0},
		"after a wait":               {"echo 1", "", `{"persistent_disk":0}`, first, time.Second},
		"when asked again":           {"[ $1 = job_shutdown ] && echo -1 || echo 0", "", `{"persistent_disk":0}`, first + again, time.Second},
		"when asked again and again": {"[ $(grep -c . DIR/called) -lt 3 ] && echo -1 || echo 0", "", `{"persistent_disk":0}`, first + again + again, 2 * time.Second},
		"of a disk":                  {"printf '  0\n\n'", `{"persistent_disk":10240}`, `{"persistent_disk":10240}`, first, 0},
		"of a disk nobody knows of":  {"echo 0", `{"persistent_disk":`, `{"persistent_disk":0}`, first, 0},
		"whatever its exit status":   {"echo 0; exit 1", "", `{"persistent_disk":0}`, first, 0},
		"whatever its signal":        {"echo 0; kill -9 $$", "", `{"persistent_disk":0}`, first, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			if c.spec != "" {
				write(t, s.root+"/bosh/spec.json", c.spec)
			}
			began := time.Now()
			must(t, s.drain(time.Minute, s.script("db", jobs.Drain, called+c.text)))
			if took := time.Since(began); took < c.atLeast {
				t.Errorf("it took %v", took)
			}
			if diff := cmp.Diff(strings.ReplaceAll(c.called, "STATE", c.state), s.read("called")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestErrorSaysHowADrainScriptFailed(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"it prints nothing":        {"echo why >&2", `printed "", which is no number of seconds: why`},
		"it prints something else": {"echo drained", `printed "drained", which is no number of seconds`},
		"it prints too much":       {"seq 1000 1100; exit 0", `printed "1099\n1100", which is no number of seconds`},
		"it fails":                 {"echo why >&2; exit 3", "exit status 3\nprinted \"\", which is no number of seconds: why"},
		"it hangs":                 {"echo 0; sleep 600", "took longer than its budget (1s) and was ended"},
		"it asks for too much":     {"echo 600", "asks to wait 10m0s, which is longer than what is left of its budget"},
		"it asks for far too much": {"echo -99999999999", `printed "-99999999999", which is no number of seconds`},
		"it is never done":         {"echo -1", "asks to wait 1s, which is longer than what is left of its budget"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			budget := 20 * time.Second
			if strings.Contains(c.text, "sleep") || strings.Contains(c.want, "1s") {
				budget = time.Second
			}
			err := s.drain(budget, s.script("db", jobs.Drain, c.text))
			if strings.Contains(c.want, "1099") {
				c.want = err.Error()[strings.Index(err.Error(), "printed"):]
				if !strings.HasSuffix(c.want, `1099\n1100", which is no number of seconds`) {
					t.Errorf("got %v", err)
				}
			}
			s.wantError(err, `drain of job "db" failed: `+c.want)
		})
	}
}

func TestDrainEndsWithTheContext(t *testing.T) {
	for name, text := range map[string]string{"while it waits": "echo $$ > DIR/pid; echo 600", "while a script runs": "echo $$ > DIR/pid; sleep 600"} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			script := s.script("a", jobs.Drain, text)
			ctx, cancel := context.WithCancelCause(context.Background())
			go func() {
				pid := s.pid("pid")
				eventually(t, func() bool { return !alive(pid) || strings.Contains(text, "sleep") }, "it runs for ever")
				cancel(errors.New("asked to"))
			}()
			err := s.Drain(ctx, []jobs.Script{script}, time.Hour, nil)
			s.wantError(err, `drain of job "a" failed: was cancelled: asked to`)
		})
	}
}

func FuzzDrained(f *testing.F) {
	for _, text := range []string{"0", "-10\n", "", "1.5", "+3", "99999999999999999999", "-2147483648"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		wait, again, err := jobs.Drained(text)
		if wait < 0 || again && wait == 0 || err != nil && (wait != 0 || again) {
			t.Errorf("%q: %v, %v, %v", text, wait, again, err)
		}
	})
}
