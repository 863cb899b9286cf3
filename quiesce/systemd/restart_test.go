package systemd_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/systemd"
)

// slow is a service that ends when it is stopped and told to end. What it was told before
// it was started does not count.
const slow = "[Service]\nExecStartPre=rm -f /run/slow /run/ends\nExecStart=sh -c 'trap \"until rm /run/ends; do sleep 0.1; done; exit 0\" TERM; touch /run/slow; while :; do sleep 0.1; done'\n"

// end has the slow service end.
func end(t testing.TB, m *machine) {
	t.Helper()
	must(t, os.WriteFile(m.Root()+"/run/ends", nil, 0o600))
}

// Over the bus a connection lasts when systemd goes and comes, and results of jobs
// that are told meanwhile are lost.
func outlivesRestarts(t *testing.T, m *machine) {
	for _, restart := range []string{"systemctl daemon-reexec", "systemctl restart dbus"} {
		t.Run(restart, func(t *testing.T) {
			m.define(t, map[string]string{"slow.service": slow})
			m.Do("systemctl", "start", "slow")
			eventually(t, "it runs", func() bool { return m.left("/run/slow") })
			s := m.supervisor(systemd.Config{Units: []string{"slow"}})
			systemd.UseSocket(s, systemd.BusSocket)
			all, _ := services(t, s)
			begun, done := make(chan jobs.State, 10), make(chan error, 1)
			go func() { done <- s.Stop(within(t), all, func(_ string, state jobs.State) { begun <- state }) }()
			if state := <-begun; state != jobs.Changing {
				t.Errorf("told %s", state)
			}
			m.Do(strings.Fields(restart)...)
			end(t, m)
			must(t, <-done)
			if now := m.Property("slow", "SubState"); now != "dead" {
				t.Errorf("it is %s", now)
			}
			must(t, s.Start(within(t), names(all), nil))
			t.Cleanup(func() { end(t, m) })
		})
	}
}

// systemd's own socket refuses processes that it cannot see, so the test is run
// again inside.
func outlivesRestartsWithoutBus(t *testing.T, m *machine, dir string) {
	m.define(t, map[string]string{"home.target": "[Unit]\nWants=slow.service\n", "slow.service": slow})
	m.Do("systemctl", "start", "slow")
	eventually(t, "it runs", func() bool { return m.left("/run/slow") })
	m.Do("systemctl", "stop", "dbus.socket", "dbus.service")
	t.Cleanup(func() { m.Do("systemctl", "start", "dbus.socket") })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	daemon := m.Command(ctx, "env", roleEnv+"="+dir+"/said", installDaemon(t, dir))
	must(t, daemon.Start())
	eventually(t, "it stops", func() bool { return m.Property("slow", "ActiveState") == "deactivating" })
	m.Do("systemctl", "daemon-reexec")
	end(t, m)
	must(t, daemon.Wait())
	if said := readSaid(t, dir); !slices.Equal(said.Services, []string{"slow.service"}) || said.Stop != "" {
		t.Errorf("it says %+v", said)
	}
	if now := m.Property("slow", "SubState"); now != "dead" {
		t.Errorf("it is %s", now)
	}
}

// The test is run again as the daemon: in a unit of the target it is to stop.
func worksInsideItsOwnUnit(t *testing.T, m *machine, dir string) {
	daemon := installDaemon(t, dir)
	m.define(t, map[string]string{
		"home.target":  "[Unit]\nWants=us.service data.service base.service\n",
		"us.service":   "[Unit]\nRequires=base.service\n[Service]\nType=oneshot\nEnvironment=" + roleEnv + "=" + dir + "/said\nExecStart=" + daemon + "\n",
		"data.service": sleeps,
		"base.service": sleeps,
	})
	m.Do("systemctl", "start", "home.target")
	m.Do("systemctl", "start", "us")
	said := readSaid(t, dir)
	if diff := cmp.Diff([]string{"base.service", "data.service"}, said.Services); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	if want := `cannot stop "base.service": it has not stopped: systemd would stop this daemon with it`; said.Stop != want {
		t.Errorf("stop answers %q, want %q", said.Stop, want)
	}
	if m.Property("data", "ActiveState") != "inactive" || m.Property("base", "ActiveState") != "active" {
		t.Error("the wrong one was stopped")
	}
}

// said is what the test says that was run as the daemon.
type said struct {
	Services []string
	Stop     string
}

// installDaemon puts the test's binary where the machine has it, too.
func installDaemon(t testing.TB, dir string) string {
	t.Helper()
	program, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	path := filepath.Join(dir, "daemon")
	must(t, os.WriteFile(path, program, 0o755))
	return path
}

func readSaid(t testing.TB, dir string) (s said) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "said"))
	must(t, err)
	must(t, json.Unmarshal(text, &s))
	return s
}

// roleEnv has the test binary be the daemon, and names the file for what it says.
const roleEnv = "QUIESCED_TEST_SAYS"

func beDaemon(file string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s := systemd.New(systemd.Config{Target: "home.target"})
	all, err := s.Services(ctx)
	if err != nil {
		return err
	}
	said := said{Services: names(all)}
	if err := s.Stop(ctx, all, nil); err != nil {
		said.Stop = err.Error()
	}
	text, err := json.Marshal(said)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}
