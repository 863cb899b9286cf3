package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/quiesce/monit/monittest"
)

const jobsConfiguration = `enable_snapshots: true
state_dir: %[1]s/state
listen: {socket: %[2]s/run/q.sock, metrics: ""}
instance: {deployment: bench, job: db, index: 0}
disks: [{cid: disk-1, mounts: [%[3]s]}]
cpi: {path: %[2]s/cpi}
log: {level: error}
processes:
  supervisor: monit
  root: %[1]s
  monit: {url: %[4]q, user_file: %[5]s, stopped_file: %[6]s}
budgets: {stop: 10m, resume: 10m}
`

// jobs measures for how long jobs are down that a real monit stops and starts, less
// the time that they need for that themselves and the hold.
func (s *stage) jobs(ctx context.Context, o options) error {
	return s.scope(func() error {
		image, err := s.image("jobs", 64)
		if err != nil {
			return err
		}
		mount, err := s.filesystem(image, "ext4")
		if err != nil {
			return err
		}
		s.say("\nDown at level stop, less the jobs' own stop and start and a hold of %s: ms, median (least to most)\n", hold)
		s.say("monit looks after its services every %s\n", o.cycle)
		s.say("%5s %-6s %5s %-9s %-32s %-32s %-10s %s\n", "jobs", "stop", "runs", "", "one job", "all: the first told, the last up", "all, whole", "quiesced over it: one, all")
		for _, takes := range o.stopTimes {
			for _, n := range o.processes {
				if err := s.scope(func() error { return s.jobsCell(ctx, o, mount, n, takes) }); err != nil {
					return fmt.Errorf("%d jobs that end in %s: %w", n, takes, err)
				}
			}
		}
		return nil
	})
}

// instance is jobs that a monit looks after.
type instance struct {
	dir   string // monit's, on the disk
	notes string // the jobs', in memory
	names []string
	start time.Duration // that a job needs to be up
}

// jobsCell measures both drivers in turns and prints a row for each.
func (s *stage) jobsCell(ctx context.Context, o options, mount string, n int, takes time.Duration) error {
	i, m, err := s.instance(n, takes, o.cycle)
	if err != nil {
		return err
	}
	ours, err := s.oursOfJobs(ctx, i, m, mount)
	if err != nil {
		return err
	}
	peer := polling{monit: m, names: i.names, stopped: stoppedFile(i.dir)}
	if err := peer.until(ctx, checked.running); err != nil {
		return err
	}
	methods := []method{ours, peer.method(ctx, mount)}
	one, all, whole := make([]series, 2), make([]series, 2), make([]series, 2)
	reps := o.reps
	if time.Duration(n)*takes > time.Minute { // monit ends one after the other
		reps = min(reps, 3)
	}
	for rep := range reps {
		for k := range methods {
			at := (rep + k) % len(methods)
			d, err := i.sample(methods[at])
			if err = errors.Join(err, ctx.Err()); err != nil {
				return fmt.Errorf("%s: %w", methods[at].name, err)
			}
			one[at], all[at], whole[at] = append(one[at], d.one), append(all[at], d.all), append(whole[at], d.whole)
		}
	}
	for k, m := range methods {
		s.say("%5d %-6s %5d %-9s %-32s %-32s %-10.0f", n, takes, len(one[k]), m.name, one[k], all[k], milliseconds(whole[k].median()))
		if k > 0 {
			s.say(" %.2f %.2f", one[0].over(one[k]), all[0].over(all[k]))
		}
		s.say("\n")
	}
	return nil
}

// instance starts a monit with so many jobs.
func (s *stage) instance(n int, takes, cycle time.Duration) (*instance, *monittest.Monit, error) {
	i := &instance{}
	var err error
	if i.dir, err = os.MkdirTemp(s.dir, "monit-"); err != nil {
		return nil, nil, err
	}
	if i.notes, err = os.MkdirTemp(s.memory, "jobs-"); err != nil {
		return nil, nil, err
	}
	s.later(func() error { return errors.Join(os.RemoveAll(i.dir), os.RemoveAll(i.notes)) })
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	var services []monittest.Service
	for k := range n {
		name := "job-" + strconv.Itoa(k)
		program := filepath.Join(i.notes, name+".sh")
		text := fmt.Sprintf("#!/bin/sh\nexec %s job %s %s %s\n", self, i.notes, name, takes)
		if err := os.WriteFile(program, []byte(text), 0o700); err != nil {
			return nil, nil, err
		}
		i.names = append(i.names, name)
		services = append(services, monittest.Service{Name: name, Program: program})
	}
	if i.start, err = startTime(services[0].Program, filepath.Join(i.notes, i.names[0])); err != nil {
		return nil, nil, err
	}
	m, err := monittest.StartCycle(i.dir, cycle, services...)
	if err != nil {
		return nil, nil, err
	}
	s.later(m.Close)
	return i, m, nil
}

// startTime is how long a job's program takes until it is up, by itself: the median
// of 9.
func startTime(program, notes string) (time.Duration, error) {
	var all series
	for range 9 {
		began := now()
		cmd := exec.Command(program)
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		noted := func() bool {
			found, err := lives(notes)
			return err == nil && len(found) == 1
		}
		for until := began + 5*time.Second; !noted() && now() < until; time.Sleep(time.Millisecond) {
		}
		found, err := lives(notes)
		if err = errors.Join(err, cmd.Process.Kill(), os.Remove(notes)); err != nil {
			return 0, err
		}
		_ = cmd.Wait()
		all = append(all, found[0].up-began)
	}
	return all.median(), nil
}

// oursOfJobs runs a daemon that knows of the jobs. Its state is on a disk, as on a BOSH VM.
func (s *stage) oursOfJobs(ctx context.Context, i *instance, m *monittest.Monit, mount string) (method, error) {
	dir, err := os.MkdirTemp(s.dir, "daemon-")
	if err != nil {
		return method{}, err
	}
	s.later(func() error { return os.RemoveAll(dir) })
	config := fmt.Sprintf(jobsConfiguration, i.dir, dir, mount, m.URL, m.UserFile, stoppedFile(i.dir))
	client, err := s.serve(ctx, dir, config)
	if err != nil {
		return method{}, err
	}
	return method{"quiesced", func() (held, error) {
		return take(ctx, client, agent.LevelStop, filepath.Join(dir, "held"))
	}}, nil
}

// sample is one snapshot. Every job must have been stopped once before the hold, and
// started once after it.
func (i *instance) sample(m method) (down, error) {
	earlier, err := i.lives()
	if err != nil {
		return down{}, err
	}
	h, err := m.do()
	if err != nil {
		return down{}, err
	}
	all, err := i.lives()
	if err != nil {
		return down{}, err
	}
	var before, after []life
	for k, name := range i.names {
		n := len(earlier[k])
		if len(all[k]) != n+1 || all[k][n-1].ended == 0 || all[k][n-1].ended > h.from || all[k][n].up < h.to {
			return down{}, fmt.Errorf("%s was not down while the disk was frozen: %+v", name, all[k])
		}
		before, after = append(before, all[k][n-1]), append(after, all[k][n])
	}
	return downtime(before, after, i.start, h), nil
}

// lives are those of each job's processes.
func (i *instance) lives() ([][]life, error) {
	var found [][]life
	for _, name := range i.names {
		all, err := lives(filepath.Join(i.notes, name))
		if err != nil {
			return nil, err
		}
		found = append(found, all)
	}
	return found, nil
}

// down is for how long jobs were down, less what they needed for it themselves.
type down struct {
	one   time.Duration // a job, the median of all
	all   time.Duration // the instance
	whole time.Duration // the instance, with nothing taken off
}

// downtime takes off, of one job, from SIGTERM to its end, its start and the hold; and
// of the instance the time in which any of them was ending, and all of their starts,
// for monit starts one after the other.
func downtime(before, after []life, start time.Duration, h held) down {
	first, last := before[0].told, after[0].up
	var one series
	for k := range before {
		one = append(one, after[k].up-before[k].ended-start-(h.to-h.from))
		first, last = min(first, before[k].told), max(last, after[k].up)
	}
	whole := last - first
	own := ending(before) + time.Duration(len(after))*start + h.to - h.from
	return down{one.median(), whole - own, whole}
}

// ending is the time in which any of them was ending.
func ending(all []life) time.Duration {
	sorted := slices.SortedFunc(slices.Values(all), func(a, b life) int { return int(a.told - b.told) })
	var sum, until time.Duration
	for _, l := range sorted {
		if l.ended > until {
			sum += l.ended - max(l.told, until)
			until = l.ended
		}
	}
	return sum
}
