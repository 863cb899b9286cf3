package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/monit/monittest"
)

// running asserts that a service runs, by monit's word.
func (w *jobsWorld) running(name string) {
	w.t.Helper()
	w.eventually(name+" runs", func() bool { s := w.service(name); return s.State == jobs.Running && s.Monitored })
}

// notHeld asserts that nothing is held of the jobs.
func (w *jobsWorld) notHeld() {
	w.t.Helper()
	for _, path := range []string{filepath.Join(w.root, "monit", "stopped"), filepath.Join(w.dir, "run", "jobs-held.json")} {
		if _, err := os.Lstat(path); err == nil {
			w.t.Errorf("%s is left", path)
		}
	}
	w.mustBeGoing()
}

// ran are the lines that scripts wrote with note.
func (w *jobsWorld) ran() []string {
	text, _ := os.ReadFile(filepath.Join(w.dir, "ran"))
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

// note has a script write a line.
func (w *jobsWorld) note(line string) string {
	return "echo '" + line + "' >> " + filepath.Join(w.dir, "ran") + "\n"
}

func TestSnapshotAtLevelStopUnderMonit(t *testing.T) {
	t.Parallel()
	w := newJobsWorld(t, []monittest.Service{sleeper(t, "db"), sleeper(t, "proxy")})
	for _, name := range []string{jobs.PreStop, jobs.PostStop, jobs.PreSnapshot, jobs.PostSnapshot, jobs.PreStart, jobs.PostStart} {
		w.bin("db", name, w.note(name))
	}
	w.bin("db", jobs.Drain, w.note(jobs.Drain)+"echo 0")
	w.bin("quiesced", jobs.PreStop, w.note("our own"))
	w.start()
	before := w.service("db").Processes
	r, report := w.take("--level", "stop")
	w.mustSay(r, exitOK)
	if !report.Clean || report.Reached != "stop" {
		t.Errorf("got %+v", report)
	}
	want := []string{
		jobs.PreStop, jobs.Drain, jobs.PostStop, jobs.PreSnapshot, jobs.PostSnapshot, jobs.PreStart, jobs.PostStart,
	}
	if diff := cmp.Diff(want, w.ran()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	w.running("db")
	w.running("proxy")
	if diff := cmp.Diff(before, w.service("db").Processes); diff == "" {
		t.Error("db was never stopped")
	}
	for _, phase := range []string{"pre_stop", "drain", "stop", "post_stop", "pre_snapshot", "frozen", "jobs_down", "resume"} {
		if report.Seconds[phase] <= 0 {
			t.Errorf("no time of phase %s", phase)
		}
	}
	w.notHeld()
}

func TestDryRunShowsWhatWouldBeDoneToJobs(t *testing.T) {
	t.Parallel()
	w := newJobsWorld(t, []monittest.Service{sleeper(t, "db")})
	w.bin("db", jobs.PreStop, w.note("ran"))
	w.bin("db", jobs.Drain, w.note("ran")+"echo 0")
	w.bin("db", jobs.Lock, w.note("ran"))
	w.bin("web", jobs.PreSnapshot, w.note("ran"))
	w.start()
	w.mustSay(w.run("take-snapshot", "--dry-run", "--level", "stop"), exitOK,
		"pre-stop", "post-start", "unmonitor", "drain", "stop and start", "pre-start, start, post-start", "pre-snapshot", "post-snapshot", "10s", "30s")
	w.mustSay(w.run("take-snapshot", "--dry-run", "--level", "lock"), exitOK, "post-backup-unlock", "level lock, nothing was done")
	if got := w.ran(); len(got) > 0 {
		t.Errorf("ran %q", got)
	}
	w.running("db")
	w.notHeld()
}

func TestStatusShowsWhatIsDoneToEachJob(t *testing.T) {
	t.Parallel()
	w := newJobsWorld(t, []monittest.Service{sleeper(t, "db")})
	w.bin("db", jobs.PostStop, "touch "+w.dir+"/called\nuntil [ -e "+w.dir+"/go ] || [ ! -e "+w.dir+" ]; do sleep 0.02; done")
	w.start()
	end := w.begin("take-snapshot", "--level", "stop")
	w.eventually("post-stop is at work", func() bool { return w.exists("called") })
	var s api.Status
	w.must(json.Unmarshal([]byte(w.run("status", "--json").out), &s))
	if s.Phase != "post_stop" || s.Doing["db"] != jobs.PostStop {
		t.Errorf("phase %s, jobs %v", s.Phase, s.Doing)
	}
	w.mustSay(w.run("status"), exitOK, "post_stop", "db: post-stop")
	w.touch("go")
	w.mustSay(end(), exitOK)
	w.notHeld()
}

func TestScriptThatFailsIsNamedWithWhatItSaid(t *testing.T) {
	for _, name := range []string{jobs.PreStop, jobs.Drain, jobs.PostStop, jobs.PreSnapshot, jobs.PreStart, jobs.PostStart} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newJobsWorld(t, []monittest.Service{sleeper(t, "db")})
			w.bin("db", name, "echo there is no leader >&2; exit 3")
			w.start()
			r := w.run("take-snapshot", "--level", "stop")
			w.mustSay(r, exitFailed, name+` of job "db"`, "there is no leader", "everything was set going again")
			w.running("db")
			w.notHeld()
		})
	}
}

func TestJobThatDoesNotComeBackIsNotResumedAndTriedAgainByTheNextDaemon(t *testing.T) {
	t.Parallel()
	broken := filepath.Join(t.TempDir(), "broken")
	db := sleeper(t, "db")
	db.Timeout = 2 * time.Second
	if err := writeProgram(db.Program, "#!/bin/sh\n[ ! -e "+broken+" ] || exit 1\nexec sleep 1000\n"); err != nil {
		t.Fatal(err)
	}
	w := newJobsWorld(t, []monittest.Service{db, sleeper(t, "proxy")}, func(text string) string {
		return strings.Replace(text, "resume: 30s", "resume: 8s", 1)
	})
	w.bin("db", jobs.PostStop, "touch "+broken)
	w.start()
	r := w.run("take-snapshot", "--level", "stop")
	w.mustSay(r, exitNotResumed, "NOT RESUMED", `cannot start "db"`)
	w.running("proxy")
	w.mustSay(w.run("status"), exitOK, "NOT GOING AGAIN: service db")
	w.mustSay(w.run("take-snapshot", "--level", "stop"), exitRefused, "not set going again yet")
	w.mustSay(w.run("take-snapshot", "--level", "freeze"), exitOK)
	w.kill()
	w.must(os.Remove(broken))
	w.start()
	w.running("db")
	w.eventually("nothing is held", func() bool { return !strings.Contains(w.run("status").out, "NOT GOING") })
	w.notHeld()
	w.mustSay(w.run("take-snapshot", "--level", "lock"), exitOK)
}

func TestDaemonThatIsToldToEndSetsJobsGoingFirst(t *testing.T) {
	t.Parallel()
	w := newJobsWorld(t, []monittest.Service{sleeper(t, "db")})
	w.script(paused("snap-1"))
	w.bin("db", jobs.PostStart, w.note(jobs.PostStart))
	w.start()
	end := w.begin("take-snapshot", "--level", "stop")
	w.eventually("the CPI is called", func() bool { return w.exists("called") })
	w.signal(syscall.SIGTERM)
	<-w.ended
	w.daemon = nil
	w.running("db")
	w.notHeld()
	if diff := cmp.Diff([]string{jobs.PostStart}, w.ran()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	w.touch("go")
	end()
}

func TestYieldEndsARunAndLeavesServicesAsTheyAre(t *testing.T) {
	t.Parallel()
	w := newJobsWorld(t, []monittest.Service{sleeper(t, "db")})
	w.script(paused("snap-1"))
	w.start()
	end := w.begin("take-snapshot", "--level", "stop")
	w.eventually("the CPI is called", func() bool { return w.exists("called") })
	w.mustSay(w.run("yield"), exitOK)
	w.mustBeGoing()
	if s := w.service("db"); s.State == jobs.Running {
		t.Errorf("db is %s", s.State)
	}
	w.touch("go")
	w.mustSay(end(), exitFailed, "the director takes the jobs over")
	w.mustSay(w.run("take-snapshot", "--level", "stop"), exitRefused)
	w.mustSay(w.run("status"), exitOK, "Yielded", "NOT GOING AGAIN: service db")
	w.kill()
	w.start() // an upgraded daemon
	w.mustSay(w.run("status"), exitOK, "Yielded", "NOT GOING AGAIN: service db")
	w.mustSay(w.run("unyield"), exitOK)
	w.running("db")
	w.eventually("nothing is held", func() bool { return !strings.Contains(w.run("status").out, "NOT GOING") })
	w.notHeld()
}

func TestWritersThatNoSupervisorKnowsAreTold(t *testing.T) {
	for policy, code := range map[string]int{"report": exitOK, "fail": exitFailed} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			w := newJobsWorld(t, []monittest.Service{sleeper(t, "db")}, func(text string) string {
				return strings.Replace(text, "  supervisor: monit", "  supervisor: monit\n  writers_left: "+policy, 1)
			})
			errand := exec.Command("sh", "-c", "exec sleep 1000 >> "+filepath.Join(w.store, "errand.log"))
			w.must(errand.Start())
			t.Cleanup(func() { _ = errand.Process.Kill(); _ = errand.Wait() })
			w.eventually("the errand has its file open", func() bool {
				_, err := os.Stat(filepath.Join(w.store, "errand.log"))
				return err == nil
			})
			w.start()
			w.mustSay(w.run("take-snapshot", "--level", "stop"), code, "processes that no supervisor knows", "errand.log")
			w.running("db")
			w.notHeld()
		})
	}
}

func TestLocksAreTakenInOrderAndReleasedInReverse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := t.TempDir()
	w.configure(with("processes: {root: " + root + "}\n"))
	j := &jobsWorld{world: w, root: root}
	for job, before := range map[string]string{"web": "[{job_name: api, release: r}]", "api": "[{job_name: db, release: r}]", "db": "[]"} {
		j.bin(job, jobs.Metadata, "echo 'backup_should_be_locked_before: "+before+"'")
		j.bin(job, jobs.Lock, j.note("lock "+job))
		j.bin(job, jobs.Unlock, j.note("unlock "+job))
	}
	w.start()
	r, report := w.take("--level", "lock")
	w.mustSay(r, exitOK)
	if !report.Clean || report.Reached != "lock" || report.Seconds["locked"] <= 0 {
		t.Errorf("got %+v", report)
	}
	want := []string{"lock web", "lock api", "lock db", "unlock db", "unlock api", "unlock web"}
	if diff := cmp.Diff(want, j.ran()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	j.bin("db", jobs.Metadata, "echo 'backup_should_be_locked_before: [{job_name: web}]'")
	w.mustSay(w.run("take-snapshot", "--level", "lock"), exitRefused, "each of these is to be locked before the next", "db", "web", "api")
	j.notHeld()
}

func TestLockThatFailsIsReleasedAllTheSame(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := t.TempDir()
	w.configure(with("processes: {root: " + root + "}\n"))
	j := &jobsWorld{world: w, root: root}
	j.bin("db", jobs.Lock, j.note("lock db")+"echo busy >&2; exit 1")
	j.bin("db", jobs.Unlock, j.note("unlock db"))
	w.start()
	w.mustSay(w.run("take-snapshot", "--level", "lock"), exitFailed, `bbr/pre-backup-lock of job "db"`, "busy")
	if diff := cmp.Diff([]string{"lock db", "unlock db"}, j.ran()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	j.notHeld()
}

func TestLockWithoutLockScriptsIsAFreeze(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(with("processes: {root: " + t.TempDir() + "}\n"))
	w.start()
	r, report := w.take("--level", "lock")
	w.mustSay(r, exitOK)
	if report.Asked != "lock" || report.Reached != "freeze" || !report.Clean || !strings.Contains(strings.Join(report.Notes, "\n"), "no job has a lock script") {
		t.Errorf("got %+v", report)
	}
}

// A plan holds nothing that the next daemon would find, and asks jobs by scripts all the same.
func TestScriptThatADeadDaemonHadAskedForAPlanIsEnded(t *testing.T) {
	t.Parallel()
	w := newJobsWorld(t, []monittest.Service{sleeper(t, "db")})
	w.bin("db", jobs.Metadata, "echo $$ >"+w.dir+"/pid; mv "+w.dir+"/pid "+w.dir+"/asked; while [ -e "+w.dir+" ]; do sleep 0.05; done")
	w.start()
	end := w.begin("take-snapshot", "--level", "lock")
	w.eventually("the job is asked", func() bool { return w.exists("asked") })
	pid, err := os.ReadFile(filepath.Join(w.dir, "asked"))
	w.must(err)
	process := filepath.Join("/proc", strings.TrimSpace(string(pid)))
	group, err := os.ReadFile(filepath.Join(process, "cgroup"))
	w.must(err)
	_, path, _ := strings.Cut(string(group), "0::")
	groups := slices.DeleteFunc([]string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}, func(at string) bool {
		_, err := os.Stat(filepath.Join(at, strings.TrimSpace(path)))
		return err != nil
	})
	if !strings.Contains(path, "/quiesced-script:") || len(groups) != 1 {
		t.Fatalf("it has no control group of its own: %q", group)
	}
	w.kill()
	end()
	w.start()
	if text, _ := os.ReadFile(filepath.Join(process, "stat")); len(text) > 0 && !strings.Contains(string(text), ") Z ") {
		t.Errorf("it is at work still: %s", text)
	}
	if _, err := os.Stat(filepath.Join(groups[0], strings.TrimSpace(path))); err == nil {
		t.Error("its control group is left")
	}
}
