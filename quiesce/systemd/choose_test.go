package systemd_test

import (
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/systemd"
)

// group are units that belong together in several ways, and what does not.
var group = map[string]string{
	"group.target":     "[Unit]\nWants=wanted.service other.target missing.service\nRequires=required.service\n",
	"other.target":     "[Unit]\nWants=beyond.service\n",
	"wanted.service":   sleeps,
	"down.service":     sleeps + "[Install]\nWantedBy=group.target\n",
	"required.service": sleeps,
	"part.service":     "[Unit]\nPartOf=group.target\n" + sleeps,
	"beyond.service":   sleeps,
	"uses.service":     "[Unit]\nRequires=wanted.service\n" + sleeps,
	"idle.service":     "[Unit]\nRequires=wanted.service\n" + sleeps,
}

func selectsByTarget(t *testing.T, m *machine) {
	m.define(t, group)
	m.Do("systemctl", "start", "group.target", "part", "uses")
	m.Do("systemctl", "stop", "down")
	s := m.supervisor(systemd.Config{Target: "group.target"})
	all, states := services(t, s)
	want := map[string]jobs.State{"group.target": jobs.Running, "wanted.service": jobs.Running, "down.service": jobs.Stopped,
		"required.service": jobs.Running, "part.service": jobs.Running, "uses.service": jobs.Running}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	must(t, s.Stop(within(t), all, nil))
	if now := m.Property("beyond", "ActiveState"); now != "active" {
		t.Errorf("a service of another target is %s", now)
	}
	must(t, s.Start(within(t), []string{"group.target", "wanted.service", "required.service", "part.service", "uses.service"}, nil))
	if _, again := services(t, s); !cmp.Equal(want, again) {
		t.Errorf("after a start (-want +got):\n%s", cmp.Diff(want, again))
	}
	_, err := m.supervisor(systemd.Config{Target: "nobodys.target"}).Services(t.Context())
	mustBe(t, "a target that is missing", err, jobs.ErrNoService)
}

func selectsBySlice(t *testing.T, m *machine) {
	m.define(t, map[string]string{
		"in.service":       sleeps + "Slice=shelf.slice\n",
		"deep.service":     sleeps + "Slice=shelf-deep.slice\n",
		"quiesced.service": sleeps + "Slice=shelf.slice\n",
		"each.socket":      "[Socket]\nListenStream=/run/each.sock\nAccept=yes\n",
		"each@.service":    "[Service]\nExecStart=cat\nStandardInput=socket\nSlice=shelf.slice\n",
	})
	m.Do("systemctl", "start", "in", "deep", "quiesced", "each.socket")
	connection, err := net.Dial("unix", m.Root()+"/run/each.sock")
	must(t, err)
	defer connection.Close()
	eventually(t, "the connection is served", func() bool { return m.Property("each.socket", "NConnections") == "1" })
	_, states := services(t, m.supervisor(systemd.Config{Slice: "shelf.slice"}))
	want := map[string]jobs.State{"in.service": jobs.Running, "deep.service": jobs.Running, "each.socket": jobs.Running}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
}
