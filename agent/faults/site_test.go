package faults_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/monit"
	"github.com/quiesced/quiesced/quiesce/monit/monittest"
)

// site is the jobs of a bed, of which "db" has every script. At level stop a monit of its own supervises their
// services; at level lock there is no supervisor. Nothing of it lies on the disk but
// one file that a service has open.
type site struct {
	kind
	dir    string // what /var/vcap is on a BOSH VM
	monit  *monittest.Monit
	client *monit.Client
}

// Services of a site at level stop, and how they are before every run.
var services = map[string]jobs.State{
	"db":          jobs.Running,
	"router":      jobs.Running,
	"stopped":     jobs.Stopped,
	"unmonitored": jobs.Unmonitored, // and runs
}

// layers are the jobs of a site at level lock in the order in which they are to be
// locked.
var layers = [][]string{{"db", "router"}, {"worker"}}

// scripts are the scripts that jobs have at a level.
var scripts = map[agent.Level][]string{
	agent.LevelStop: {jobs.PreStop, jobs.Drain, jobs.PostStop, jobs.PreSnapshot, jobs.PostSnapshot, jobs.PreStart, jobs.PostStart},
	agent.LevelLock: {jobs.Lock, jobs.PreSnapshot, jobs.PostSnapshot, jobs.Unlock},
}

// common begins every script. It keeps a list of what scripts did, and does, once,
// what a test has put in its way.
const common = `#!/bin/sh
site=%[1]s job=%[2]s name=%[3]s
did() { echo "$name $job $1" >>$site/did; }
late() { echo "$name $job" >>$site/late; }
did begins
fault=$site/faults/$job.${name#*/}
if [ -e $fault ] && mv $fault $fault.taken; then . $fault.taken; fi
%[4]s
did ends
`

// effects are what scripts do. A lock that is there already cannot be taken.
var effects = map[string]string{
	jobs.Drain:  "cp $site/monit/$job.pid $site/drained/$job; echo 0",
	jobs.Lock:   `mkdir $site/locked/$job || exit`,
	jobs.Unlock: `rmdir $site/locked/$job 2>/dev/null`,
}

// command starts a service, which has a file on the disk open.
const command = `%s 100000 3>>%s </dev/null >/dev/null 2>&1 & echo $! >%s`

// newSite makes the jobs of a level, and has their services be as they are before.
func newSite(dir, disk string, k kind) (*site, error) {
	s := &site{kind: k, dir: dir}
	for _, d := range []string{"monit", "programs", "locked", "drained", "faults"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := s.writeScripts(); err != nil || k.level != agent.LevelStop {
		return s, err
	}
	return s, s.startServices(disk)
}

func (s *site) writeScripts() error {
	names := []string{"db", "router", "quiesced"} // quiesced is our own job, whose scripts are never run
	if s.level == agent.LevelLock {
		names = append(names, "worker")
	}
	var errs []error
	for _, job := range names {
		for _, name := range scripts[s.level] {
			if job == "router" && name != jobs.Drain && name != jobs.Lock && name != jobs.Unlock {
				continue
			}
			errs = append(errs, s.script(job, name, fmt.Sprintf(common, s.dir, job, name, effects[name])))
		}
		if job != "worker" {
			errs = append(errs, s.script(job, jobs.Metadata,
				"#!/bin/sh\necho 'backup_should_be_locked_before: [{job_name: worker, release: any}]'\n"))
		}
	}
	return errors.Join(errs...)
}

func (s *site) script(job, name, text string) error {
	path := filepath.Join(s.dir, "jobs", job, "bin", name)
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755))
}

func (s *site) program(service string) string { return filepath.Join(s.dir, "programs", service) }

func (s *site) startServices(disk string) (err error) {
	var all []monittest.Service
	dir := filepath.Join(s.dir, "monit")
	for name := range services {
		if err := os.Symlink("/bin/sleep", s.program(name)); err != nil {
			return err
		}
		start := fmt.Sprintf(command, s.program(name), filepath.Join(disk, name), filepath.Join(dir, name+".pid"))
		all = append(all, monittest.Service{Name: name, Start: start})
	}
	if s.failing {
		all = append(all, monittest.Service{Name: "failing", Program: "/bin/false", Timeout: time.Second, Rules: "every 3 cycles"})
	}
	if s.monit, err = monittest.Start(dir, all...); err != nil {
		return err
	}
	s.client = monit.New(monit.Config{URL: s.monit.URL, UserFile: s.monit.UserFile})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = eventually("monit has started all services", func() bool {
		now, err := s.client.Services(ctx)
		return err == nil && !slices.ContainsFunc(now, func(one jobs.Service) bool {
			return one.State != jobs.Running && one.Name != "failing"
		})
	})
	return errors.Join(err,
		s.client.Stop(ctx, []jobs.Service{{Name: "stopped"}}, nil),
		s.client.Unmonitor(ctx, []string{"unmonitored"}),
		s.asBefore())
}

// forget forgets what scripts did, before a case.
func (s *site) forget() error {
	if s == nil {
		return nil
	}
	return errors.Join(os.RemoveAll(filepath.Join(s.dir, "late")), s.reset())
}

// timeIsOver has a script that is still at work do what it would do late.
func (s *site) timeIsOver() { _ = os.Remove(filepath.Join(s.dir, "atwork")) }

// reset forgets what scripts of a run did.
func (s *site) reset() error {
	if s == nil {
		return nil
	}
	var errs []error
	for _, pattern := range []string{"did", "atwork", "drained/*", "faults/*"} {
		found, _ := filepath.Glob(filepath.Join(s.dir, pattern))
		for _, path := range found {
			errs = append(errs, os.Remove(path))
		}
	}
	return errors.Join(errs...)
}

func (s *site) close() error {
	if s == nil || s.monit == nil {
		return nil
	}
	return s.monit.Close()
}

// config is the part of a configuration that knows of the jobs.
func (s *site) config() string {
	if s == nil {
		return ""
	}
	if s.monit == nil {
		return fmt.Sprintf("processes: {supervisor: none, root: %s}\n", s.dir)
	}
	return fmt.Sprintf("processes: {supervisor: monit, root: %s, monit: {url: %q, user_file: %s, stopped_file: %s}}\n",
		s.dir, s.monit.URL, s.monit.UserFile, s.mark())
}

// mark is the file that says who stopped the services.
func (s *site) mark() string { return filepath.Join(s.dir, "monit", "stopped") }

// event is the beginning or the end of a script.
type event struct{ name, job, what string }

func (s *site) events() (all []event) {
	text, _ := os.ReadFile(filepath.Join(s.dir, "did"))
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 {
			all = append(all, event{f[0], f[1], f[2]})
		}
	}
	return all
}

// exists says whether there is something of the site.
func (s *site) exists(path ...string) bool {
	_, err := os.Lstat(filepath.Join(append([]string{s.dir}, path...)...))
	return err == nil
}
