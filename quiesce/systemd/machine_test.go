package systemd_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/systemd"
	"github.com/quiesced/quiesced/quiesce/systemd/systemdtest"
)

// machine is a machine with a systemd, and units for tests.
type machine struct{ *systemdtest.Machine }

// define has systemd know units, by name, until t ends.
func (m *machine) define(t testing.TB, units map[string]string) {
	t.Helper()
	dir := m.Root() + "/run/systemd/system/"
	for name, text := range units {
		must(t, os.WriteFile(dir+name, []byte(text), 0o644))
		for line := range strings.Lines(text) {
			if target, ok := strings.CutPrefix(strings.TrimSpace(line), "WantedBy="); ok {
				must(t, os.MkdirAll(dir+target+".wants", 0o755))
				must(t, os.Symlink("../"+name, filepath.Join(dir, target+".wants", name)))
			}
		}
	}
	m.Do("systemctl", "daemon-reload")
	names := slices.Collect(maps.Keys(units))
	t.Cleanup(func() {
		_, _ = m.Run(append([]string{"systemctl", "stop", "--no-block"}, names...)...)
		_, _ = m.Run(append([]string{"systemctl", "kill", "-s", "KILL"}, names...)...)
		_, _ = m.Run(append([]string{"systemctl", "stop"}, names...)...)
		_, _ = m.Run(append([]string{"systemctl", "reset-failed"}, names...)...)
		for name := range units {
			wants, _ := filepath.Glob(dir + "*.wants/" + name)
			for _, path := range append(wants, dir+name) {
				_ = os.Remove(path)
			}
		}
	})
}

// mask masks a unit until t ends.
func (m *machine) mask(t testing.TB, name string) {
	t.Helper()
	path := m.Root() + "/run/systemd/system/" + name
	must(t, os.Symlink("/dev/null", path))
	m.Do("systemctl", "daemon-reload")
	t.Cleanup(func() { _ = os.Remove(path) })
}

// left says whether a unit has left a file, and removes that.
func (m *machine) left(path string) bool { return os.Remove(m.Root()+path) == nil }

// up starts units.
func (m *machine) up(t testing.TB, units map[string]string) {
	t.Helper()
	m.Do(append([]string{"systemctl", "start"}, slices.Collect(maps.Keys(units))...)...)
}

// supervisor is a new client of the machine's systemd.
func (m *machine) supervisor(c systemd.Config) *systemd.Supervisor {
	c.Root = m.Root()
	return systemd.New(c)
}

// within is a context for what is expected to be done in time.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("it does not come to this: %s", what)
		}
	}
}
