package jobs_test

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

func TestScriptsOfAllJobsButOursAreListed(t *testing.T) {
	s := newSite(t)
	b, a := s.script("b", jobs.PreStop, ""), s.script("a", jobs.PreStop, "")
	s.script("quiesced", jobs.PreStop, "")
	s.script("other", jobs.PostStop, "")
	s.link("gone")
	write(t, s.root+"/jobs/file", "")
	must(t, os.Symlink("loop", s.root+"/jobs/loop"))
	c := s.script("not executable", jobs.PreStop, "")
	must(t, os.Chmod(c.Path, 0o644))
	s.script("linked to nothing", jobs.PostStop, "")
	must(t, os.Symlink("nothing", s.root+"/data/jobs/linked to nothing/bin/pre-stop"))
	want(t, s, jobs.PreStop, a, b, c)
	want(t, s, jobs.Drain)
}

func TestScriptsOfNoJobAreAmongThoseOfASnapshot(t *testing.T) {
	s := newSite(t)
	a, of := s.script("a", jobs.PreSnapshot, ""), s.script("", jobs.PreSnapshot, "")
	after := s.script("", jobs.PostSnapshot, "")
	s.script("", "pre-stop", "")
	want(t, s, jobs.PreSnapshot, of, a)
	want(t, s, jobs.PostSnapshot, after)
	want(t, s, jobs.PreStop)
	s.Layout.Hooks = ""
	want(t, s, jobs.PreSnapshot, a)
}

func TestThereAreNoScriptsWhereThereAreNoJobs(t *testing.T) {
	want(t, newSite(t), jobs.PreSnapshot)
}

func TestJobsThatCannotBeReadAreAnError(t *testing.T) {
	s := newSite(t)
	write(t, s.root+"/jobs", "")
	_, err := s.Layout.Scripts(jobs.Drain)
	s.wantError(err, "cannot look for drain scripts: open DIR/jobs: not a directory")
}

func TestUnlockScriptIsThatOfTheLockScriptsJob(t *testing.T) {
	s := newSite(t)
	a, b := s.script("a", jobs.Lock, ""), s.script("b", jobs.Lock, "")
	unlock := s.script("a", jobs.Unlock, "")
	if got, ok := s.Layout.UnlockOf(a); got != unlock || !ok {
		t.Errorf("got %v, %v", got, ok)
	}
	if got, ok := s.Layout.UnlockOf(b); ok {
		t.Errorf("got %v", got)
	}
}

func want(t *testing.T, s *site, name string, scripts ...jobs.Script) {
	t.Helper()
	got, err := s.Layout.Scripts(name)
	must(t, err)
	if diff := cmp.Diff(scripts, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
