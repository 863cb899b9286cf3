package systemd_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/systemd"
)

const sleeps = "[Service]\nExecStart=sleep infinity\n"

// services lists those of a supervisor, as name: state.
func services(t testing.TB, s *systemd.Supervisor) (all []jobs.Service, states map[string]jobs.State) {
	t.Helper()
	all, err := s.Services(t.Context())
	must(t, err)
	states = map[string]jobs.State{}
	for _, service := range all {
		states[service.Name] = service.State
	}
	return all, states
}

func names(all []jobs.Service) (names []string) {
	for _, service := range all {
		names = append(names, service.Name)
	}
	return names
}

// service is one of a supervisor's services.
func service(t testing.TB, s *systemd.Supervisor, name string) jobs.Service {
	t.Helper()
	all, _ := services(t, s)
	i := slices.IndexFunc(all, func(s jobs.Service) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("%q is not among %v", name, all)
	}
	return all[i]
}

func detail(t testing.TB, s *systemd.Supervisor, name string) string {
	t.Helper()
	return service(t, s, name).Detail
}

func mustBe(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error is %v, want %v", what, err, want)
	}
}

func tellsMaskedFailedAndMissingApart(t *testing.T, m *machine) {
	m.define(t, map[string]string{
		"well.service":    sleeps,
		"faulty.service":  "[Service]\nType=exec\nExecStart=sh -c 'exit 3'\n",
		"gone.service":    "[Service]\nExecStart=/nowhere/program\n",
		"unmet.service":   "[Unit]\nConditionPathExists=/nowhere\n" + sleeps + "[Install]\nWantedBy=basic.target\n", // else it is forgotten
		"needs.service":   "[Unit]\nRequires=refuses.service\nAfter=refuses.service\n" + sleeps,
		"refuses.service": "[Service]\nType=oneshot\nExecStart=false\n",
	})
	m.mask(t, "hidden.service")
	s := m.supervisor(systemd.Config{Units: []string{"well", "faulty", "gone", "unmet", "needs", "hidden", "nobodys"}})
	all, _ := services(t, s)
	errs := byService(t, s.Start(within(t), names(all), nil))
	for _, c := range []struct {
		name   string
		cause  error
		words  string // in the error
		state  jobs.State
		detail string
	}{
		{"well.service", nil, "", jobs.Running, "active (running)"},
		{"faulty.service", jobs.ErrNotRunning, "status 3", jobs.Failing, "failed (failed), result exit-code, status 3"},
		{"gone.service", jobs.ErrNotRunning, "status 203", jobs.Failing, "failed (failed), result exit-code, status 203"},
		{"unmet.service", jobs.ErrNotRunning, "a condition is not met", jobs.Stopped, "inactive (dead), a condition is not met"},
		{"needs.service", jobs.ErrNotRunning, "ended as dependency", jobs.Stopped, "inactive (dead)"},
		{"hidden.service", jobs.ErrMasked, "masked", jobs.Stopped, "masked, inactive (dead)"},
		{"nobodys.service", jobs.ErrNoService, "not found", jobs.Stopped, "not-found, inactive (dead)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := errs[c.name]; !errors.Is(err, c.cause) || c.cause != nil && !strings.Contains(err.Error(), c.words) {
				t.Errorf("error is %v, want %v with %q", err, c.cause, c.words)
			}
			if got := service(t, s, c.name); got.State != c.state || got.Detail != c.detail {
				t.Errorf("it is %+v, want %s: %s", got, c.state, c.detail)
			}
		})
	}
	mustBe(t, "stop of one that is missing", s.Stop(within(t), []jobs.Service{{Name: "nobodys.service"}}, nil), jobs.ErrNoService)
}

// byService are the errors that were joined.
func byService(t testing.TB, err error) map[string]error {
	t.Helper()
	all := map[string]error{}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("error is %v, want several", err)
	}
	for _, e := range joined.Unwrap() {
		var of *jobs.ServiceError
		if !errors.As(e, &of) || all[of.Service] != nil {
			t.Fatalf("error %v, want one for each service", e)
		}
		all[of.Service] = e
	}
	return all
}

func leavesAloneWhatIsMaskedAndRuns(t *testing.T, m *machine) {
	m.define(t, map[string]string{"veiled.service": sleeps})
	m.Do("systemctl", "start", "veiled")
	must(t, os.Remove(m.Root()+"/run/systemd/system/veiled.service"))
	m.mask(t, "veiled.service")
	s := m.supervisor(systemd.Config{Units: []string{"veiled.service"}})
	all, _ := services(t, s)
	mustBe(t, "stop", s.Stop(within(t), all, nil), jobs.ErrMasked)
	if now := m.Property("veiled", "ActiveState"); now != "active" {
		t.Errorf("it is %s", now)
	}
}

func waitsUntilReady(t *testing.T, m *machine) {
	m.define(t, map[string]string{
		"once.service":  "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=sleep 0.3\n",
		"ready.service": "[Service]\nType=notify\nNotifyAccess=all\nExecStart=sh -c 'sleep 0.5; touch /run/is-ready; systemd-notify --ready; exec sleep infinity'\n",
		"fails.service": "[Service]\nType=notify\nExecStart=sh -c 'exit 4'\nRestart=always\nRestartSec=50ms\n",
	})
	s := m.supervisor(systemd.Config{Units: []string{"once", "ready", "fails"}})
	must(t, s.Start(within(t), []string{"once.service", "ready.service"}, nil))
	if !m.left("/run/is-ready") {
		t.Error("it was started and is not ready")
	}
	err := s.Start(within(t), []string{"fails.service"}, nil)
	mustBe(t, "one that is given up after some tries", err, jobs.ErrNotRunning)
	if got := detail(t, s, "fails.service"); !strings.HasPrefix(got, "failed (failed)") || !strings.HasSuffix(got, "status 4") {
		t.Errorf("detail is %q: systemd has not given it up", got)
	}
	all, states := services(t, s)
	want := map[string]jobs.State{"once.service": jobs.Running, "ready.service": jobs.Running, "fails.service": jobs.Failing}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	must(t, s.Stop(within(t), all, nil))
	if got := detail(t, s, "once.service"); got != "inactive (dead)" {
		t.Errorf("it is %s", got)
	}
}

// A stop job that goes on when time is up is replaced by Start, and one that ends in
// a kill is no stop.
func copesWithWhatDoesNotStop(t *testing.T, m *machine) {
	m.define(t, map[string]string{"deaf.service": "[Service]\nExecStart=sh -c 'trap \"\" TERM; touch /run/deaf; while :; do sleep 1; done'\nTimeoutStopSec=1\n"})
	m.Do("systemctl", "start", "deaf")
	eventually(t, "it is deaf", func() bool { return m.left("/run/deaf") })
	s := m.supervisor(systemd.Config{Units: []string{"deaf"}})
	all, _ := services(t, s)
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	mustBe(t, "a stop that takes too long", s.Stop(short, all, nil), jobs.ErrNotStopped)
	must(t, s.Start(within(t), names(all), nil))
	if again, states := services(t, s); states["deaf.service"] != jobs.Running || slices.Equal(again[0].Processes, all[0].Processes) {
		t.Errorf("after a start it is %v, and was %v", again, all)
	}
	eventually(t, "it is deaf again", func() bool { return m.left("/run/deaf") })
	all, _ = services(t, s)
	err := s.Stop(within(t), all, nil)
	mustBe(t, "a stop that ends in a kill", err, jobs.ErrNotStopped)
	if !strings.Contains(err.Error(), "killed") {
		t.Errorf("error is %v", err)
	}
	must(t, s.Stop(within(t), all, nil))
}
