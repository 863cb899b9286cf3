package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var releaseJobs = []string{"quiesced", "quiesce_cpi"}

func TestReleasesPropertiesAreDescribedAndUsed(t *testing.T) {
	for _, job := range releaseJobs {
		s := readSpec(t, job)
		asked := render(t, job, examples(s)).asked
		for name, p := range s.Properties {
			if p.Description == "" || p.Example == nil {
				t.Errorf("job %s: %s has no description or no example", job, name)
			}
			if !slices.Contains(asked, name) {
				t.Errorf("job %s: no template asks for %s", job, name)
			}
		}
		for _, name := range asked {
			if _, ok := s.Properties[name]; !ok {
				t.Errorf("job %s: a template asks for %s, which is not in the spec", job, name)
			}
		}
	}
}

// The keys of the daemon are in docs/configuration.md; the guide has the rest.
func TestGuideExplainsTheJobsProperties(t *testing.T) {
	guide, err := os.ReadFile("../../docs/bosh.md")
	if err != nil {
		t.Fatal(err)
	}
	names := slices.Clone(jobsOwn)
	for name := range readSpec(t, "quiesce_cpi").Properties {
		names = append(names, name)
	}
	for _, name := range names {
		if !strings.Contains(string(guide), "`"+name+"`") {
			t.Errorf("docs/bosh.md does not explain %s", name)
		}
	}
}

func TestReleasesFilesAreThere(t *testing.T) {
	for _, job := range releaseJobs {
		s := readSpec(t, job)
		dir := filepath.Join(releaseDir, "jobs", job)
		if s.Name != job || s.Description == "" || !slices.Equal(s.Packages, []string{"quiesced"}) {
			t.Errorf("job %s is %q, of packages %q, described by %q", job, s.Name, s.Packages, s.Description)
		}
		if _, err := os.Stat(filepath.Join(dir, "monit")); err != nil {
			t.Error(err)
		}
		files, err := os.ReadDir(filepath.Join(dir, "templates"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if s.Templates[f.Name()] == "" {
				t.Errorf("job %s: the spec does not list template %s", job, f.Name())
			}
		}
	}
}

// directives are a unit's lines that say something, each with its section.
func directives(text string) []string {
	section := ""
	var all []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "", strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "["):
			section = line
		default:
			all = append(all, section+line)
		}
	}
	return all
}

// without are the lines of one unit that another has not.
func without(all, others []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(line string) bool { return slices.Contains(others, line) })
}

func TestReleasesUnitDiffersFromTheOtherAsItHasTo(t *testing.T) {
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	packaged, job := directives(string(text)), directives(render(t, "quiesced", nil).text(t, "config/quiesced.service"))
	if diff := cmp.Diff([]string{
		"[Unit]Documentation=file:/usr/share/doc/quiesced/configuration.md",
		"[Service]ExecStart=/usr/bin/quiesced serve",
		"[Service]ExecStopPost=/usr/bin/quiesced thaw --abandoned",
	}, without(packaged, job)); diff != "" {
		t.Errorf("what only packaging/systemd has (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		"[Unit]ConditionPathExists=/var/vcap/packages/quiesced/bin/quiesced",
		"[Unit]ConditionPathExists=/var/vcap/jobs/quiesced/config/quiesced.yml",
		"[Service]ExecStart=/var/vcap/packages/quiesced/bin/quiesced serve --config /var/vcap/jobs/quiesced/config/quiesced.yml",
		"[Service]ExecStartPost=/bin/sh -c 'echo $MAINPID >/run/quiesced/quiesced.pid'",
		"[Service]ExecStopPost=/var/vcap/packages/quiesced/bin/quiesced thaw --abandoned --socket /run/quiesced/quiesced.sock",
	}, without(job, packaged)); diff != "" {
		t.Errorf("what only the job has (-want +got):\n%s", diff)
	}
}
