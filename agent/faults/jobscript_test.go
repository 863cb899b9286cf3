package faults_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
	"github.com/quiesced/quiesced/quiesce/jobs"
)

// misdeed is what a script of job "db" does, once.
type misdeed struct {
	name string
	text string // sh; $budget is in seconds
	kind deed
	late time.Duration // when, after it began, what it would do late is done at the latest
}

type deed int

const (
	failing     deed = iota
	overrunning      // takes longer than its budget
	working          // when the daemon is hit
)

// They print something first, for the report to tell.
var misdeeds = []misdeed{
	{"fails", "echo 'no cheese left' >&2; exit 3", failing, 0},
	{"hangs and ignores SIGTERM", "trap '' TERM INT HUP; echo 'no cheese left' >&2; while :; do sleep 1; done", overrunning, 0},
	{"succeeds after its budget", "echo 'no cheese left' >&2; sleep $((budget + 1)); late", overrunning, 8 * time.Second},
	{"fails and leaves a process of another session", "setsid sh -c 'sleep 3; echo late >>'$site/late $0 & sleep 0.1; echo 'no cheese left' >&2; exit 3", failing, 4 * time.Second},
}

// atWork is what a script does while the daemon is killed, until it is told that its time
// is over.
var atWork = misdeed{"is at work", "echo 'no cheese left' >&2; : >$site/atwork; while [ -e $site/atwork ]; do sleep 0.1; done; late", working, time.Second}

// budgets of the scripts as the configuration names them.
var budgets = map[string]string{
	jobs.PreStop: "pre_stop", jobs.Drain: "drain", jobs.PostStop: "pre_stop",
	jobs.Lock: "lock", jobs.PreSnapshot: "lock", jobs.PostSnapshot: "lock", jobs.Unlock: "lock",
	jobs.PreStart: "resume", jobs.PostStart: "resume",
}

// tight is how long a script has that overruns its budget, in seconds. In that of
// resuming services are started, too.
func tight(script string) int {
	if budgets[script] == "resume" {
		return 6
	}
	return 3
}

// undoes says that a script is run again until it has succeeded: its run is not
// resumed before.
func undoes(script string) bool { return script == jobs.PostSnapshot || script == jobs.Unlock }

func TestMatrixOfScripts(t *testing.T) {
	pool := newBeds(t)
	for _, k := range []kind{underMonit, withLocks} {
		for i, script := range scripts[k.level] {
			if k == underMonit && slices.Contains(scripts[agent.LevelLock], script) {
				continue
			}
			pool.playScript(t, k, script, misdeeds[0], "")
			for _, m := range thinned(i, misdeeds[1:]) {
				pool.playScript(t, k, script, m, "")
			}
			pool.playScript(t, k, script, atWork, killed)
			if !undoes(script) && budgets[script] != "resume" { // which the end of a daemon waits for
				pool.playScript(t, k, script, atWork, ended)
			}
		}
	}
}

// TestMatrixOfRetries has the daemon killed while it tries again to undo what a run that was
// reported could not.
func TestMatrixOfRetries(t *testing.T) {
	pool := newBeds(t)
	for _, script := range []string{jobs.PostSnapshot, jobs.Unlock} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			pool.use(t, withLocks, func(v *vm) error {
				err := v.prepare(script, misdeeds[0])
				if err == nil {
					err = errors.Join(v.misbehave(""), v.checkTold(script, misdeeds[0], ""), v.prepare(script, atWork))
				}
				if err == nil {
					err = errors.Join(v.again(), v.hitAtWork(killed), v.start(), v.answers())
				}
				if err == nil {
					err = v.awaitGoing()
				}
				if err != nil {
					return err
				}
				v.bed.site.timeIsOver()
				began := time.Now() // or earlier
				err = v.check(false, hardships{anything: true, script: script})
				time.Sleep(time.Until(began.Add(atWork.late)))
				return errors.Join(err, v.bed.site.checkLate(), v.checkJobs(hardships{}))
			})
		})
	}
}

// playScript has a script misbehave, and the daemon hit meanwhile if there is a fault.
func (p *beds) playScript(t *testing.T, k kind, script string, m misdeed, f fault) {
	t.Helper()
	name := fmt.Sprintf("%s: %s %s", k, script, m.name)
	if f != "" {
		name += ", daemon " + string(f)
	}
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		p.use(t, k, func(v *vm) error {
			if err := v.prepare(script, m); err != nil {
				return err
			}
			if err := v.misbehave(f); err != nil {
				return err
			}
			told := v.checkTold(script, m, f)
			if err := errors.Join(told, v.tryAgain(script, f)); err != nil {
				return err
			}
			v.bed.site.timeIsOver()
			began := time.Now() // or earlier
			err := v.check(false, hardships{script: script})
			time.Sleep(time.Until(began.Add(m.late)))
			return errors.Join(err, v.bed.site.checkLate(), v.checkJobs(hardships{}))
		})
	})
}

// prepare has a script do its misdeed, within a budget that it overruns soon, where that
// is what it does.
func (v *vm) prepare(script string, m misdeed) error {
	fault := fmt.Sprintf("budget=%d\n%s\n", tight(script), m.text)
	err := os.WriteFile(filepath.Join(v.bed.site.dir, "faults", "db."+filepath.Base(script)), []byte(fault), 0o600)
	if err != nil || m.kind != overrunning {
		return err
	}
	path := filepath.Join(v.dir, "q.yml")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	budget := regexp.MustCompile(budgets[script] + ": [0-9]+s")
	text = budget.ReplaceAll(text, fmt.Appendf(nil, "%s: %ds", budgets[script], tight(script)))
	return errors.Join(os.WriteFile(path, text, 0o600), v.again())
}

// again ends the daemon in order and starts it again.
func (v *vm) again() error {
	_ = v.daemon.Process.Signal(syscall.SIGTERM)
	if err := v.awaitEnd(false); err != nil {
		return err
	}
	return errors.Join(v.start(), v.answers())
}

// misbehave asks for a run, and hits the daemon when the script is at work, if there is a
// fault.
func (v *vm) misbehave(f fault) error {
	asked := v.begin(runID)
	if f != "" {
		if err := v.hitAtWork(f); err != nil {
			return err
		}
	}
	<-asked
	return errors.Join(v.restart(), v.answers())
}

// hitAtWork hits the daemon when a script says that it is at work.
func (v *vm) hitAtWork(f fault) error {
	if err := eventually("the script is at work", func() bool { return v.bed.site.exists("atwork") }); err != nil {
		return err
	}
	return errors.Join(v.inflict(step{fault: f, who: daemon}, patience), v.awaitEnd(false))
}

// checkTold asserts that the report says which script it was, and what it printed.
func (v *vm) checkTold(script string, m misdeed, f fault) error {
	reports, err := v.reports(runID, patience)
	if err != nil || len(reports) != 1 {
		return fmt.Errorf("there are %d reports: %w", len(reports), err)
	}
	r := reports[0]
	outcome := agent.OutcomeFailed
	if undoes(script) && f == "" {
		outcome = agent.OutcomeNotResumed
	}
	errs := []error{wanted(r, "outcome", r.Outcome, string(outcome))}
	named := fmt.Sprintf("%s of job %q", script, "db")
	if f != "" {
		if f == killed {
			errs = append(errs, wanted(r, "notes", strings.Join(r.Notes, "\n"), "the "+named+" was still at work, and was ended"))
		}
		return errors.Join(errs...)
	}
	errs = append(errs, wanted(r, "error", r.Error, named+" failed: "), wanted(r, "error", r.Error, "no cheese left"))
	if m.kind == overrunning {
		errs = append(errs, wanted(r, "error", r.Error, "budget"))
	}
	return errors.Join(errs...)
}

func wanted(r wire.Report, what, got, part string) error {
	if strings.Contains(got, part) {
		return nil
	}
	return fmt.Errorf("the report's %s do not tell %q: %+v", what, part, r)
}

// tryAgain starts the daemon again, which then undoes what it could not undo before.
func (v *vm) tryAgain(script string, f fault) error {
	if !undoes(script) || f != "" {
		return nil
	}
	if err := v.again(); err != nil {
		return err
	}
	return v.awaitGoing()
}

// awaitGoing waits until nothing is held any more of a run that was reported.
func (v *vm) awaitGoing() error {
	return eventually("everything is undone", func() bool {
		s, err := v.status()
		return err == nil && len(s.NotGoing) == 0
	})
}
