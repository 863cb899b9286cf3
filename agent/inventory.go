package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/quiesced/quiesced/quiesce"
	"github.com/quiesced/quiesced/quiesce/jobs"
)

// Inventory is how the jobs are before a run.
type Inventory struct {
	Services []jobs.Service
	Scripts  map[string][]jobs.Script // those that the level runs, by name
	Locks    [][]jobs.Script          // lock scripts, in layers

	// AtRest says that the director has stopped the jobs already: nothing is to be
	// stopped, locked or started.
	AtRest bool

	NoHooks string // why pre-snapshot scripts are not run, "" if they are

	// Held says that an earlier hold has brought the jobs to rest, and they are so
	// still.
	Held bool

	CannotStop error // why level stop cannot be reached, nil if it can
	CannotLock error
}

// running are the services that a stop is about: those that run, and those that
// their supervisor would start meanwhile. One that nobody looks after is left alone.
func (i *Inventory) running() []jobs.Service {
	return slices.DeleteFunc(slices.Clone(i.Services), func(s jobs.Service) bool {
		return s.State != jobs.Running && (s.State != jobs.Failing || !s.Monitored && len(s.Processes) == 0)
	})
}

// stopScripts are the scripts of level stop, by name; every level that freezes
// has the hooks.
var stopScripts = []string{jobs.PreStop, jobs.Drain, jobs.PostStop}

// inventory looks at the jobs as far as a level needs it.
func (a *Agent) inventory(ctx context.Context, l Level) (*Inventory, error) {
	i := &Inventory{Scripts: map[string][]jobs.Script{}}
	if !l.Clean() {
		return i, nil
	}
	var names []string
	if i.NoHooks = a.directorHasJobs(); i.NoHooks == "" {
		names = append(names, jobs.PreSnapshot)
	}
	if l == LevelStop {
		names = append(names, stopScripts...)
	}
	for _, name := range names {
		found, err := a.Settings.Processes.Layout.Scripts(name)
		if err != nil {
			return nil, err
		}
		i.Scripts[name] = found
	}
	if l == LevelFreeze {
		return i, nil
	}
	i.CannotLock = a.services(ctx, i)
	if !i.AtRest { // where nothing is done to jobs nobody is in the way
		i.CannotLock = errors.Join(a.othersAtWork(), i.CannotLock)
	}
	i.CannotStop = i.CannotLock
	if a.unsupervised() {
		i.CannotStop = errors.Join(i.CannotLock, errors.New("no supervisor is configured that could stop jobs (processes.supervisor)"))
	}
	if l == LevelLock && !i.AtRest && i.CannotLock == nil {
		i.Locks, i.CannotLock = a.Scripts.LockLayers(ctx)
	}
	return i, nil
}

// directorHasJobs says that the director has stopped the jobs or is about to, "" if
// not: what their hooks would talk to may not be there.
func (a *Agent) directorHasJobs() string {
	if _, yielded := a.yielded(); yielded {
		return "the director has the jobs to itself (quiesced yield): their pre-snapshot scripts are not run"
	}
	if mark, err := a.mark(); err == nil && mark.Owner == jobs.Director {
		return "the director has stopped the jobs: their pre-snapshot scripts are not run"
	}
	return ""
}

// settleTime is for how long a supervisor may be at work on a service before that
// counts: it looks at one that fails whenever it ends, for an instant.
const settleTime = 2 * time.Second

// settled are the services once their supervisor is at work on none, or after that
// time.
func (a *Agent) settled(ctx context.Context) ([]jobs.Service, error) {
	for until := time.Now().Add(settleTime); ; {
		all, err := a.Supervisor.Services(ctx)
		if err != nil || len(changing(all)) == 0 || time.Now().After(until) {
			return all, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(markEvery):
		}
	}
}

// unsupervised says that no supervisor is configured.
func (a *Agent) unsupervised() bool { return a.Supervisor == jobs.None{} }

// services asks the supervisor, if there is one, and says who else is at work on the
// services.
func (a *Agent) services(ctx context.Context, i *Inventory) error {
	if a.unsupervised() {
		return nil
	}
	var err error
	if i.Services, err = a.settled(ctx); err != nil {
		return err
	}
	mark, err := a.mark()
	if err != nil {
		return err
	}
	if len(i.Services) == 0 {
		return fmt.Errorf("%s has no services of the jobs: the director is at work", a.Supervisor)
	}
	switch busy := changing(i.Services); {
	case mark.Owner == jobs.Ours:
		return fmt.Errorf("the services were stopped by run %q", mark.Run)
	case mark.Owner == jobs.Director && (len(busy) > 0 || slices.ContainsFunc(i.Services, alive)):
		return errors.New("the director is starting or stopping the jobs")
	case mark.Owner == jobs.Director:
		i.AtRest = true
	case len(busy) > 0:
		return fmt.Errorf("%s is at work on %s", a.Supervisor, strings.Join(busy, ", "))
	case unmonitored(i.Services):
		return fmt.Errorf("%s looks after none of its services: the director may be draining them", a.Supervisor)
	}
	return nil
}

// alive says that a service has processes, whether anybody looks after them or not.
func alive(s jobs.Service) bool { return s.State == jobs.Running || s.State == jobs.Unmonitored }

func changing(all []jobs.Service) []string {
	var names []string
	for _, s := range all {
		if s.State == jobs.Changing {
			names = append(names, s.Name)
		}
	}
	return names
}

// unmonitored says that services are alive, and their supervisor looks after none of
// them. Where it looks after some, somebody has left out the others on purpose.
func unmonitored(all []jobs.Service) bool {
	return slices.ContainsFunc(all, func(s jobs.Service) bool { return s.State == jobs.Unmonitored }) &&
		!slices.ContainsFunc(all, func(s jobs.Service) bool { return s.Monitored })
}

// othersAtWork says who has the jobs or the disk for work of his own.
func (a *Agent) othersAtWork() error {
	if at, yielded := a.yielded(); yielded {
		return fmt.Errorf("the director has the jobs to itself since %s (quiesced yield)", at.UTC().Format("15:04:05"))
	}
	root := a.Settings.Processes.Layout.Root
	backup := filepath.Join(root, "store", "bbr-backup")
	if _, err := os.Lstat(backup); err == nil {
		return fmt.Errorf("BBR is at work: %s exists", backup)
	}
	target := filepath.Join(root, "store_migration_target")
	migrating, err := quiesce.Mounted(target)
	if err != nil {
		return fmt.Errorf("cannot tell whether a disk is being migrated: %w", err)
	}
	if migrating {
		return fmt.Errorf("the director is migrating the persistent disk: %s is mounted", target)
	}
	return nil
}
