package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
)

// inNetClass runs a command where net_cls is mounted and has the groups that bosh-agent
// makes, in a mount namespace of its own: other tests' daemons would join the groups.
const inNetClass = `mkdir -p "$0" && mount -t cgroup -o net_cls net_cls "$0" && cd "$0" && %s`

// firewalled has the daemon of a world run beside the groups.
func (w *world) firewalled(dir string) {
	w.under = []string{"unshare", "-m", "sh", "-c", fmt.Sprintf(inNetClass, `mkdir -p monit-api-access nats-api-access && exec "$@"`), dir}
}

func TestBesideMonitsFirewallTheBusIsReachedThroughARelay(t *testing.T) {
	groups := filepath.Join(t.TempDir(), "net_cls")
	t.Cleanup(func() { // when the daemon has ended
		remove := fmt.Sprintf(inNetClass, `rmdir monit-api-access nats-api-access`)
		apitest.Eventually(t, "the groups are empty", func() bool {
			return exec.Command("unshare", "-m", "sh", "-c", remove, groups).Run() == nil
		})
	})
	w, bus := newWorld(t), apitest.StartDirectorBus(t, false)
	w.onStemcell(bus, apitest.AgentCN)
	w.appendConfig("processes: {supervisor: monit, monit: {url: 'http://127.0.0.1:1'}}\n")
	w.firewalled(groups)
	w.start()
	c := api.Client{Caller: bus.Client(t)}
	apitest.AwaitAnswer(t, c.Caller)
	relay := relayOf(t, w.daemon.Process.Pid)
	inGroup(t, w.daemon.Process.Pid, "monit-api-access")
	inGroup(t, relay, "nats-api-access")
	id, err := c.Take(t.Context(), agent.Request{Level: agent.LevelSync})
	w.must(err)
	_, err = c.Report(t.Context(), id)
	w.must(err)

	bus.Stop()
	bus.Start(t)
	apitest.AwaitAnswer(t, bus.Client(t))
	if gone(relay) {
		relay = relayOf(t, w.daemon.Process.Pid)
	} else {
		t.Error("the relay outlives its connection")
	}
	w.kill()
	apitest.Eventually(t, "the relay ends with the daemon", func() bool { return gone(relay) })
}

// appendConfig adds to the configuration.
func (w *world) appendConfig(lines string) {
	w.t.Helper()
	text, err := os.ReadFile(w.config)
	w.must(err)
	w.must(os.WriteFile(w.config, append(text, lines...), 0o600))
}

// relayOf is the daemon's child that relays.
func relayOf(t *testing.T, daemon int) int {
	t.Helper()
	out, err := exec.Command("pgrep", "-P", fmt.Sprint(daemon), "-f", "relay 127.0.0.1:").Output()
	var pid int
	if _, scanErr := fmt.Sscan(string(out), &pid); err != nil || scanErr != nil {
		t.Fatalf("the daemon has no relay: %v, %q", errors.Join(err, scanErr), out)
	}
	return pid
}

func inGroup(t *testing.T, pid int, group string) {
	t.Helper()
	text := mustRead(t, fmt.Sprintf("/proc/%d/cgroup", pid))
	if !strings.Contains(text, ":net_cls:/"+group+"\n") {
		t.Errorf("process %d is not in %s:\n%s", pid, group, text)
	}
}

func gone(pid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d/stat", pid))
	return os.IsNotExist(err)
}

func TestARelayThatCannotConnectSaysWhy(t *testing.T) {
	relay := exec.Command(filepath.Join(binaries, "quiesced"), "relay", "127.0.0.1:1")
	out, err := relay.Output()
	if err == nil || string(out) != "dial tcp 127.0.0.1:1: connect: connection refused\n" {
		t.Errorf("it ends with %v and says %q", err, out)
	}
}
