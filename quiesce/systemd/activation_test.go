package systemd_test

import (
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/systemd"
)

func keepsActivationAway(t *testing.T, m *machine) {
	m.define(t, map[string]string{
		"answers.socket":  "[Socket]\nListenStream=/run/answers.sock\n",
		"answers.service": "[Unit]\nRequires=answers.socket\n[Service]\nExecStart=sh -c 'echo > /run/answered; exec sleep infinity'\n",
		"ticks.timer":     "[Timer]\nOnActiveSec=300ms\nOnUnitInactiveSec=300ms\nAccuracySec=1ms\n",
		"ticks.service":   "[Service]\nType=oneshot\nExecStart=touch /run/ticked\n",
		"looks.path":      "[Path]\nPathExists=/run/looked-for\n",
		"looks.service":   sleeps,
		"holds.target":    "[Unit]\nUpholds=held.service\n",
		"held.service":    sleeps,
	})
	up := []string{"answers.service", "answers.socket", "held.service", "holds.target", "looks.path", "ticks.timer"}
	m.Do(append([]string{"systemctl", "start"}, up...)...)
	s := m.supervisor(systemd.Config{Units: []string{"answers", "ticks", "looks", "held"}})
	all, _ := services(t, s)
	want := slices.Sorted(slices.Values(append([]string{"looks.service", "ticks.service"}, up...)))
	if diff := cmp.Diff(want, names(all)); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	must(t, s.Stop(within(t), all, nil))
	activate(t, m)
	// The timer's service may have been stopped at its work, and have failed.
	if after, states := services(t, s); slices.ContainsFunc(after, func(s jobs.Service) bool { return s.State == jobs.Running || s.State == jobs.Changing }) {
		t.Errorf("while they should be stopped they are %v", states)
	}
	if m.left("/run/answered") || m.left("/run/ticked") {
		t.Error("a service was started")
	}
	must(t, s.Start(within(t), up, nil))
	for _, name := range up {
		if now := m.Property(name, "ActiveState"); now != "active" {
			t.Errorf("%s is %s", name, now)
		}
	}
	eventually(t, "the timer goes on", func() bool { return m.left("/run/ticked") })
}

// activate does what would start services that are activated.
func activate(t testing.TB, m *machine) {
	t.Helper()
	m.left("/run/answered")
	m.left("/run/ticked")
	if c, err := net.Dial("unix", m.Root()+"/run/answers.sock"); err == nil {
		must(t, c.Close())
	}
	must(t, os.WriteFile(m.Root()+"/run/looked-for", nil, 0o600))
	time.Sleep(700 * time.Millisecond) // the timer's time, had it not been stopped
}
