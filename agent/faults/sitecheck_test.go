package faults_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/quiesce/jobs"
)

// hardships are what a case had happen that excuses something.
type hardships struct {
	markAlone bool   // nothing but the mark was left of what was known
	unlocking bool   // what an unlock script had done was not recorded
	anything  bool   // there were any number of runs and faults
	script    string // failed, or was cut off, in its run of one job
}

// once says that a script failed that is run once all the same.
func (h hardships) once(script string) bool {
	return h.script == script && (script == jobs.PreStart || script == jobs.PostStart)
}

// checkJobs asserts that the jobs are as they were before, of a site that has any.
func (v *vm) checkJobs(h hardships) error {
	s := v.bed.site
	if s == nil {
		return nil
	}
	errs := []error{s.asBefore(), s.checkUndone(h)}
	if s.level == agent.LevelLock {
		errs = append(errs, s.checkLocks(h), s.checkLockOrder(h))
	}
	for _, path := range []string{s.mark(), s.mark() + ".new", s.mark() + ".quiesced", filepath.Join(v.dir, "run", "jobs-held.json")} {
		if _, err := os.Lstat(path); err == nil {
			errs = append(errs, fmt.Errorf("LEFT BEHIND: %s", path))
		}
	}
	for _, e := range s.events() {
		if e.job == "quiesced" {
			errs = append(errs, fmt.Errorf("our own %s was run", e.name))
		}
	}
	return errors.Join(errs...)
}

// asBefore asserts, by monit's word and by the processes, that services run which
// ran before, and no others.
func (s *site) asBefore() error {
	if s.monit == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := s.client.Services(ctx)
	if err != nil {
		return err
	}
	found := map[string]jobs.State{}
	for _, one := range all {
		if one.Name == "failing" && one.Monitored && one.State != jobs.Running {
			continue // in one state or another
		}
		found[one.Name] = one.State
	}
	if diff := cmp.Diff(services, found); diff != "" {
		return fmt.Errorf("SERVICES ARE NOT AS BEFORE: -want +got:\n%s", diff)
	}
	// A new process has the name of what starts it for a moment.
	if within(soon, "all processes are there", func() bool { return s.checkProcesses() == nil }) == nil {
		return nil
	}
	return s.checkProcesses()
}

// checkProcesses looks at the services' processes: there is one of each that runs,
// and what was drained is not in use any more.
func (s *site) checkProcesses() error {
	var errs []error
	running := commands()
	for _, name := range slices.Sorted(maps.Keys(services)) {
		found := s.processes(running, name)
		want := 1
		if services[name] == jobs.Stopped {
			want = 0
		}
		if len(found) != want {
			errs = append(errs, fmt.Errorf("%d PROCESSES OF SERVICE %q: %v", len(found), name, found))
		}
		drained, err := os.ReadFile(filepath.Join(s.dir, "drained", name))
		if pid, _ := strconv.Atoi(strings.TrimSpace(string(drained))); err == nil && slices.Contains(found, pid) {
			errs = append(errs, fmt.Errorf("SERVICE %q WAS DRAINED, AND NOT STARTED ANEW", name))
		}
	}
	return errors.Join(errs...)
}

// processes are the pids of a service's program, among commands.
func (s *site) processes(running map[int]string, service string) (found []int) {
	for pid, arguments := range running {
		if strings.HasPrefix(arguments, s.program(service)+"\x00") {
			found = append(found, pid)
		}
	}
	return found
}

// isScript says whether a command is a script of a job, or was started by one.
func (s *site) isScript(arguments string) bool {
	return s != nil && strings.Contains(arguments, s.dir+"/jobs/")
}

// undoneBy are the scripts of the same job that have to have ended after another
// began.
var undoneBy = map[string][]string{
	jobs.PreStop:     {jobs.PostStart},
	jobs.Drain:       {jobs.PreStart, jobs.PostStart},
	jobs.PostStop:    {jobs.PreStart, jobs.PostStart},
	jobs.PreSnapshot: {jobs.PostSnapshot},
	jobs.Lock:        {jobs.Unlock},
}

// checkUndone asserts that every script was followed by those that undo it.
func (s *site) checkUndone(h hardships) error {
	var errs []error
	all := s.events()
	for i, e := range all {
		for _, undo := range undoneBy[e.name] {
			after := func(o event) bool { return o == event{undo, e.job, "ends"} }
			excused := !s.exists("jobs", e.job, "bin", undo) || h.markAlone && undo == jobs.PostSnapshot || h.once(undo)
			if e.what == "begins" && !excused && !slices.ContainsFunc(all[i:], after) {
				errs = append(errs, fmt.Errorf("NO %s OF JOB %q AFTER ITS %s", undo, e.job, e.name))
			}
		}
	}
	return errors.Join(errs...)
}

// checkLocks asserts that no lock is held, and how often each was released.
func (s *site) checkLocks(h hardships) error {
	held, err := os.ReadDir(filepath.Join(s.dir, "locked"))
	errs := []error{err}
	for _, one := range held {
		errs = append(errs, fmt.Errorf("JOB %q IS LOCKED", one.Name()))
	}
	times := map[event]int{}
	for _, e := range s.events() {
		times[e]++
	}
	for _, job := range slices.Concat(layers...) {
		took, released := times[event{jobs.Lock, job, "begins"}], times[event{jobs.Unlock, job, "begins"}]
		most := 1
		if h.unlocking || h.script == jobs.Unlock {
			most = 2
		}
		if (took > 1 || released > most) && !h.anything || took > released {
			errs = append(errs, fmt.Errorf("JOB %q WAS LOCKED %d TIMES AND UNLOCKED %d TIMES", job, took, released))
		}
	}
	return errors.Join(errs...)
}

// checkLockOrder asserts that locks were taken one layer after the other, and
// released in the reverse order.
func (s *site) checkLockOrder(h hardships) error {
	if h.anything {
		return nil // of one run one cannot tell the other's
	}
	all := s.events()
	first := func(e event) int { return slices.Index(all, e) }
	last := func(e event) int {
		reversed := slices.Clone(all)
		slices.Reverse(reversed)
		return len(all) - 1 - slices.Index(reversed, e)
	}
	var errs []error
	for _, before := range layers[0] {
		for _, after := range layers[1] {
			if at := first(event{jobs.Lock, after, "begins"}); at >= 0 && at < first(event{jobs.Lock, before, "ends"}) {
				errs = append(errs, fmt.Errorf("job %q was locked before %q", after, before))
			}
			at := first(event{jobs.Unlock, before, "begins"})
			if at >= 0 && first(event{jobs.Lock, after, "begins"}) >= 0 && h.script != jobs.Unlock && at < last(event{jobs.Unlock, after, "ends"}) {
				errs = append(errs, fmt.Errorf("job %q was unlocked before %q", before, after))
			}
		}
	}
	return errors.Join(errs...)
}

// checkLate asserts that nothing was done by a script that had been ended.
func (s *site) checkLate() error {
	if text, err := os.ReadFile(filepath.Join(s.dir, "late")); err == nil {
		return fmt.Errorf("DONE AFTER ITS END: %s", text)
	}
	return nil
}
