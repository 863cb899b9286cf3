package systemd_test

import (
	"strings"
	"testing"

	"github.com/quiesced/quiesced/quiesce/systemd"
)

var cgroups = []struct{ name, text, want string }{
	{"in the unified hierarchy", "0::/system.slice/quiesced.service\n", "quiesced.service"},
	{"in systemd's own hierarchy", "3:cpu:/x.service\n1:name=systemd:/system.slice/a-b.slice/q.service\n0::/\n", "q.service"},
	{"in a group of its own below its unit", "0::/system.slice/quiesced.service/guard\n", "quiesced.service"},
	{"under a user's systemd", "0::/user.slice/user-1.slice/user@1.service/app.slice/q.service\n", "user@1.service"},
	{"in a login session", "0::/user.slice/user-0.slice/session-3.scope\n", "session-3.scope"},
	{"in no unit", "0::/\n", ""},
	{"cut short", "0:", ""},
}

func TestOwnUnit(t *testing.T) {
	for _, c := range cgroups {
		t.Run(c.name, func(t *testing.T) {
			if got := systemd.UnitIn(c.text); got != c.want {
				t.Errorf("unit is %q, want %q", got, c.want)
			}
		})
	}
}

func FuzzOwnUnit(f *testing.F) {
	for _, c := range cgroups {
		f.Add(c.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got := systemd.UnitIn(text); !strings.Contains(text, got) || strings.Contains(got, "/") {
			t.Errorf("unit is %q", got)
		}
	})
}
