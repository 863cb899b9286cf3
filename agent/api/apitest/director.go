package apitest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/quiesced/quiesced/agent/natsapi"
)

// DirectorBus is a message bus as a director runs it: TLS, users by their
// certificates, and a director's rights. It is configured by a file.
type DirectorBus struct {
	Authority *Authority
	URL       string
	file      string
	dir       string
	debian    bool
	stop      func()
}

// StartDirectorBus starts a bus in this process, or Debian's nats-server.
func StartDirectorBus(t testing.TB, debian bool) *DirectorBus {
	t.Helper()
	b := &DirectorBus{Authority: NewAuthority(t), dir: t.TempDir(), debian: debian}
	b.file = filepath.Join(b.dir, "nats.conf")
	b.URL = fmt.Sprintf("nats://127.0.0.1:%d", freePort(t))
	b.Configure(t, b.Authority.Issue(t, ServerCN), AgentCN)
	b.Start(t)
	t.Cleanup(func() { b.Stop() })
	return b
}

// Configure writes the bus's configuration, for its next start: its certificate, and
// that of AgentID's VM.
func (b *DirectorBus) Configure(t testing.TB, own Pair, agentCN string) {
	t.Helper()
	ca, cert, key := b.Authority.Files(t, filepath.Join(b.dir, "server"), own)
	users := []map[string]any{
		user(DirectorCN, []string{"agent.*", "hm.director.alert"}, []string{"director.>"}),
		user(MonitorCN, []string{}, []string{"hm.agent.heartbeat.*", "hm.agent.alert.*", "hm.agent.shutdown.*", "hm.director.alert"}),
		vm(agentCN, AgentID),
		vm(OtherAgentCN, OtherAgentID),
	}
	var doc bytes.Buffer
	e := json.NewEncoder(&doc)
	e.SetEscapeHTML(false) // the server reads JSON, but no \u003e
	must(t, e.Encode(map[string]any{
		"listen":        b.URL[len("nats://"):],
		"max_payload":   1 << 20,
		"tls":           map[string]any{"ca_file": ca, "cert_file": cert, "key_file": key, "verify_and_map": true, "timeout": 10},
		"authorization": map[string]any{"users": users, "timeout": 10},
	}))
	must(t, os.WriteFile(b.file, doc.Bytes(), 0o600))
}

func vm(cn, id string) map[string]any {
	return user(cn,
		[]string{"hm.agent.heartbeat." + id, "hm.agent.alert." + id, "hm.agent.shutdown." + id, "director.*." + id + ".*"},
		[]string{"agent." + id})
}

func user(cn string, publish, subscribe []string) map[string]any {
	return map[string]any{
		"user":        "C=USA, O=Cloud Foundry, CN=" + cn,
		"permissions": map[string]any{"publish": publish, "subscribe": subscribe},
	}
}

// Start starts the bus as it is configured.
func (b *DirectorBus) Start(t testing.TB) {
	t.Helper()
	if b.debian {
		b.startDebian(t)
	} else {
		b.startHere(t)
	}
	Eventually(t, "the bus listens", func() bool {
		conn, err := net.Dial("tcp", b.URL[len("nats://"):])
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

func (b *DirectorBus) startHere(t testing.TB) {
	t.Helper()
	options, err := server.ProcessConfigFile(b.file)
	must(t, err)
	options.NoLog, options.NoSigs = true, true
	s, err := server.NewServer(options)
	must(t, err)
	s.Start()
	b.stop = func() { s.Shutdown(); s.WaitForShutdown() }
}

func (b *DirectorBus) startDebian(t testing.TB) {
	t.Helper()
	s := exec.Command(debianServer(t), "-c", b.file)
	must(t, s.Start())
	b.stop = func() { _ = s.Process.Kill(); _ = s.Wait() }
}

// debianServer is installed, or what make deps has put into build/testbed.
func debianServer(t testing.TB) string {
	t.Helper()
	const installed = "/usr/sbin/nats-server"
	if _, err := os.Stat(installed); err == nil {
		return installed
	}
	out, err := exec.Command("go", "env", "GOMOD").Output()
	must(t, err)
	path := filepath.Join(filepath.Dir(string(out)), "build/testbed", installed)
	if _, err := os.Stat(path); err != nil {
		t.Fatal("cannot find Debian's nats-server: run make deps")
	}
	return path
}

// Stop stops the bus if it runs.
func (b *DirectorBus) Stop() {
	if b.stop != nil {
		b.stop()
	}
	b.stop = nil
}

// Config is how whoever has a certificate reaches the bus, to call AgentID's daemon or
// to be it.
func (b *DirectorBus) Config(t testing.TB, p Pair) natsapi.Config {
	t.Helper()
	dir, err := os.MkdirTemp(b.dir, "certificate-")
	must(t, err)
	ca, cert, key := b.Authority.Files(t, dir, p)
	return natsapi.Config{
		URLs: []string{b.URL}, CA: ca, Cert: cert, Key: key,
		Subject: "agent." + AgentID, Prefix: "quiesced_", AgentID: AgentID,
	}
}

// Connect joins the bus with a certificate of that name until the test ends.
func (b *DirectorBus) Connect(t testing.TB, cn string) *nats.Conn {
	t.Helper()
	conn, err := b.Config(t, b.Authority.Issue(t, cn)).Dial(context.Background(), cn)
	must(t, err)
	t.Cleanup(conn.Close)
	return conn
}
