package jobs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// The scripts of a job, below its bin directory.
const (
	PreStop      = "pre-stop"
	Drain        = "drain"
	PostStop     = "post-stop"
	PreStart     = "pre-start"
	PostStart    = "post-start"
	PreSnapshot  = "quiesced/pre-snapshot"
	PostSnapshot = "quiesced/post-snapshot"
	Verify       = "quiesced/verify"
	Metadata     = "bbr/metadata"
	Lock         = "bbr/pre-backup-lock"
	Unlock       = "bbr/post-backup-unlock"
)

// Layout says where jobs lie.
type Layout struct {
	Root  string // has jobs/JOB/bin and sys/log/JOB: /var/vcap on a BOSH VM
	Own   string // the job whose scripts are never run, since it is ours
	Hooks string // a directory with a pre-snapshot, a post-snapshot and a verify of no job; "" for none
}

// Script is one script of one job.
type Script struct {
	Job  string // "" for one of Layout.Hooks
	Name string // one of the constants
	Path string
}

func (s Script) String() string { return fmt.Sprintf("%s of job %q", s.Name, s.Job) }

// Scripts are the scripts of a name, sorted by job, that of Layout.Hooks first.
// One that is there and cannot be executed is among them: running it fails.
func (l Layout) Scripts(name string) ([]Script, error) {
	jobs, err := l.jobs()
	if err != nil {
		return nil, fmt.Errorf("cannot look for %s scripts: %w", name, err)
	}
	if l.Hooks != "" && filepath.Dir(name) == "quiesced" {
		jobs = append([]string{""}, jobs...)
	}
	var found []Script
	for _, job := range jobs {
		s := l.script(job, name)
		there, err := s.there()
		if err != nil {
			return nil, fmt.Errorf("cannot look for %s: %w", s, err)
		}
		if there {
			found = append(found, s)
		}
	}
	return found, nil
}

// UnlockOf is the script that undoes a lock script, and whether the job has one.
// A job is unlocked if its lock script was begun, and not otherwise: what was
// never locked has nothing to be undone. Unlock scripts run in the reverse order
// of layers.
func (l Layout) UnlockOf(lock Script) (Script, bool) {
	s := l.script(lock.Job, Unlock)
	there, err := s.there()
	return s, there || err != nil // what cannot be looked at is tried, and told if it fails
}

// jobs are the names of all jobs but ours, sorted. They are links to directories
// mostly; what is something else has no scripts.
func (l Layout) jobs() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(l.Root, "jobs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if e.Name() != l.Own {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// script is where a script of a job is, or would be.
func (l Layout) script(job, name string) Script {
	if job == "" {
		return Script{Name: name, Path: filepath.Join(l.Hooks, filepath.Base(name))}
	}
	return Script{Job: job, Name: name, Path: filepath.Join(l.Root, "jobs", job, "bin", name)}
}

func (s Script) there() (bool, error) {
	_, err := os.Stat(s.Path)
	for _, none := range []error{fs.ErrNotExist, syscall.ENOTDIR, syscall.ELOOP} {
		if errors.Is(err, none) {
			return false, nil
		}
	}
	return err == nil, err
}
