package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/journal"
	"github.com/quiesced/quiesced/agent/schedule"
)

// ScheduleConfig is what the schedules have in common.
type ScheduleConfig struct {
	Splay   time.Duration `yaml:"splay"`    // within which each instance has its own delay
	CatchUp bool          `yaml:"catch_up"` // a run that was missed is made up for
}

// schedules are the configured cron strings, by key.
func (c *Config) schedules() []struct {
	key, cron string
	trigger   agent.Trigger
} {
	return []struct {
		key, cron string
		trigger   agent.Trigger
	}{
		{"snapshot_schedule", c.SnapshotSchedule, agent.TriggerScheduled},
		{"self_snapshot_schedule", c.SelfSnapshotSchedule, agent.TriggerSelf},
	}
}

func (c *Config) checkSchedules(d *document) {
	for _, one := range c.schedules() {
		if one.cron == "" {
			continue
		}
		if _, err := schedule.Parse(one.cron); err != nil {
			d.fail(one.key, "%v", err)
		}
	}
	if c.Schedule.Splay < 0 {
		d.fail("schedule.splay", "%s is negative", c.Schedule.Splay)
	}
}

// checkSelf says why a VM's snapshots are none of a director's own VM, though they are
// to be taken as such: the CPI would be told a wrong owner. What is no stemcell's VM is
// what its operator says.
func (c *Config) checkSelf() error {
	vm := c.stemcell()
	if c.SelfSnapshotSchedule == "" || vm == nil || vm.Runs(directorsJob) {
		return nil
	}
	return fmt.Errorf("self_snapshot_schedule: %s has no job %q, so this is no director's VM (snapshot_schedule is for any other)",
		filepath.Join(vm.Root, "jobs"), directorsJob)
}

// directorsJob is the job that makes a VM a director's.
const directorsJob = "director"

// timekeeper has the timetables of the configuration; nil where nothing is scheduled.
func (c *Config) timekeeper(log *slog.Logger) *agent.Timekeeper {
	wrong := c.checkSelf()
	if wrong != nil {
		log.Error("no snapshot is taken by a schedule that is not this VM's", "error", wrong)
	}
	var tables []agent.Timetable
	for _, one := range c.schedules() {
		times, err := schedule.Parse(one.cron)
		if one.cron == "" || err != nil { // which check has told
			continue
		}
		if one.trigger == agent.TriggerSelf && wrong != nil {
			continue
		}
		tables = append(tables, agent.Timetable{
			Trigger: one.trigger, Cron: one.cron, Times: times, Delay: c.delay(), CatchUp: c.Schedule.CatchUp,
		})
	}
	if len(tables) == 0 {
		return nil
	}
	return &agent.Timekeeper{
		Tables: tables, Log: log,
		Store: journal.HandledFile{Path: filepath.Join(c.StateDir, "schedules.json")},
	}
}

// delay is this instance's part of the splay, the same at every start: a fleet's runs
// are spread over it.
func (c *Config) delay() time.Duration {
	if c.Schedule.Splay == 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(c.Instance.Deployment + "/" + c.Instance.who().String() + "/" + c.Instance.AgentID))
	return (time.Duration(h.Sum64()>>1) % c.Schedule.Splay).Truncate(time.Second)
}

// keepTime begins what is scheduled until ctx ends.
func keepTime(ctx context.Context, k *agent.Timekeeper, a *agent.Agent) error {
	k.Take = func(r agent.Request) error {
		_, err := a.Take(ctx, r)
		return err
	}
	k.Idle = func() bool { work, _, _ := a.Now(); return work == "" }
	k.Start(time.Now())
	runner := cron.New(cron.WithLocation(time.UTC))
	runner.Schedule(wakes{k}, cron.FuncJob(func() { k.Tick(time.Now()) }))
	k.Tick(time.Now()) // what was missed
	runner.Start()
	<-ctx.Done()
	<-runner.Stop().Done()
	return nil
}

// wakes is when the timekeeper has something to do.
type wakes struct{ keeper *agent.Timekeeper }

func (w wakes) Next(now time.Time) time.Time { return w.keeper.Next(now) }

// atTimes calls do at each time of a schedule, later by this instance's part of the
// splay, until ctx ends.
func (c *Config) atTimes(ctx context.Context, text string, do func()) error {
	times, err := schedule.Parse(text)
	if err != nil {
		return err
	}
	runner := cron.New(cron.WithLocation(time.UTC))
	runner.Schedule(delayed{times, c.delay()}, cron.FuncJob(do))
	runner.Start()
	<-ctx.Done()
	<-runner.Stop().Done()
	return nil
}

// delayed is a schedule of which everything comes later.
type delayed struct {
	times agent.Times
	by    time.Duration
}

func (d delayed) Next(now time.Time) time.Time {
	next := d.times.Next(now.Add(-d.by))
	if next.IsZero() {
		return next
	}
	return next.Add(d.by)
}
