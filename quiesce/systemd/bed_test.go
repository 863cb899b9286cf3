package systemd_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/jobs/jobstest"
	"github.com/quiesced/quiesced/quiesce/systemd"
)

// bed is a machine whose systemd has the suite's services, wanted by a target.
type bed struct {
	*machine
	dir string
}

func (b bed) Dir() string { return b.dir }

// Define writes units, which the suite's names are without a suffix.
func (b bed) Define(t testing.TB, services ...jobstest.Service) {
	t.Helper()
	units := map[string]string{}
	for _, s := range services {
		program, err := s.Install(b.dir)
		must(t, err)
		units[s.Name+".service"] = "[Service]\nExecStart=" + program + "\nRestart=always\nTimeoutStopSec=40\n[Install]\nWantedBy=suite.target\n"
	}
	b.define(t, units)
	b.up(t, units)
}

func (b bed) Supervisor() jobs.Supervisor {
	return short{systemd.New(systemd.Config{Target: "suite.target", Root: b.Root()})}
}

// Cut has systemd answer nobody.
func (b bed) Cut(t testing.TB) { must(t, syscall.Kill(b.Leader(), syscall.SIGSTOP)) }

// Restore has systemd go on, by executing itself again.
func (b bed) Restore(t testing.TB) {
	must(t, errors.Join(syscall.Kill(b.Leader(), syscall.SIGTERM), syscall.Kill(b.Leader(), syscall.SIGCONT)))
}

// RestartsUnmonitored is so of systemd.
func (b bed) RestartsUnmonitored() {}

// short is systemd with names of services as the suite has them, without a suffix.
type short struct{ *systemd.Supervisor }

const suffix = ".service"

func (s short) Services(ctx context.Context) ([]jobs.Service, error) {
	all, err := s.Supervisor.Services(ctx)
	for i := range all {
		all[i].Name = strings.TrimSuffix(all[i].Name, suffix)
	}
	slices.SortFunc(all, func(a, b jobs.Service) int { return strings.Compare(a.Name, b.Name) })
	return all, err
}

func (s short) Unmonitor(ctx context.Context, names []string) error {
	return shorten(s.Supervisor.Unmonitor(ctx, lengthen(names)))
}

func (s short) Monitor(ctx context.Context, names []string) error {
	return shorten(s.Supervisor.Monitor(ctx, lengthen(names)))
}

func (s short) Stop(ctx context.Context, services []jobs.Service, told func(string, jobs.State)) error {
	var long []jobs.Service
	for _, service := range services {
		service.Name += suffix
		long = append(long, service)
	}
	return shorten(s.Supervisor.Stop(ctx, long, shortly(told)))
}

func (s short) Start(ctx context.Context, names []string, told func(string, jobs.State)) error {
	return shorten(s.Supervisor.Start(ctx, lengthen(names), shortly(told)))
}

func lengthen(names []string) []string {
	var long []string
	for _, name := range names {
		long = append(long, name+suffix)
	}
	return long
}

func shortly(told func(string, jobs.State)) func(string, jobs.State) {
	if told == nil {
		return nil
	}
	return func(name string, state jobs.State) { told(strings.TrimSuffix(name, suffix), state) }
}

// shorten does so with the names in errors.
func shorten(err error) error {
	joined, _ := err.(interface{ Unwrap() []error })
	if joined == nil {
		return err
	}
	for _, e := range joined.Unwrap() {
		var of *jobs.ServiceError
		if errors.As(e, &of) {
			of.Service = strings.TrimSuffix(of.Service, suffix)
		}
	}
	return err
}
