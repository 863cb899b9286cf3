package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/monit"
	"github.com/quiesced/quiesced/quiesce/monit/monittest"
)

// jobsWorld is a VM whose jobs a real monit supervises.
type jobsWorld struct {
	*world
	root  string // of the jobs: what /var/vcap is on a BOSH VM
	monit *monittest.Monit
}

// sleeper is a service that does nothing until it is told to stop.
func sleeper(t testing.TB, name string) monittest.Service {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	if err := writeProgram(program, "#!/bin/sh\nexec sleep 1000\n"); err != nil {
		t.Fatal(err)
	}
	return monittest.Service{Name: name, Program: program}
}

// newJobsWorld makes a VM with services, and a configuration that knows of them.
// change edits the configuration's text.
func newJobsWorld(t testing.TB, services []monittest.Service, change ...func(string) string) *jobsWorld {
	t.Helper()
	w := &jobsWorld{root: t.TempDir()}
	w.world = newWorld(t)
	dir := filepath.Join(w.root, "monit")
	w.must(os.MkdirAll(dir, 0o755))
	m, err := monittest.Start(dir, services...)
	w.must(err)
	t.Cleanup(func() { w.must(m.Close()) })
	w.monit = m
	w.configure(append([]func(string) string{with(fmt.Sprintf(`processes:
  supervisor: monit
  root: %[1]s
  monit: {url: %[2]q, user_file: %[3]s, stopped_file: %[1]s/monit/stopped}
budgets: {pre_stop: 10s, drain: 10s, stop: 30s, lock: 10s, resume: 30s}
`, w.root, m.URL, m.UserFile))}, change...)...)
	for _, s := range services {
		w.eventually(s.Name+" runs", func() bool { return w.service(s.Name).State == jobs.Running })
	}
	return w
}

// service is how a service is by monit's word.
func (w *jobsWorld) service(name string) jobs.Service {
	w.t.Helper()
	m := monit.New(monit.Config{URL: w.monit.URL, UserFile: w.monit.UserFile})
	all, err := m.Services(w.t.Context())
	if err != nil {
		return jobs.Service{}
	}
	for _, s := range all {
		if s.Name == name {
			return s
		}
	}
	return jobs.Service{}
}

// bin makes a script of a job.
func (w *jobsWorld) bin(job, name, body string) {
	w.t.Helper()
	path := filepath.Join(w.root, "jobs", job, "bin", name)
	w.must(os.MkdirAll(filepath.Dir(path), 0o755))
	w.must(writeProgram(path, "#!/bin/sh\n"+body+"\n"))
}
