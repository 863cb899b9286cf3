package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/httpapi"
	"github.com/quiesced/quiesced/agent/natsapi"
)

const (
	agentID      = "11111111-aaaa-4bbb-8ccc-000000000001"
	directorUUID = "demo-director"
	password     = "demonstration"
)

// startBus starts a NATS server in this process, with a director's rights: the
// agent's user may do what a VM's certificate allows, and no more.
func (s *stage) startBus() (*server.Server, error) {
	users := []*server.User{
		{Username: "director", Password: password, Permissions: rights([]string{"agent.*", "hm.director.alert"}, []string{"director.>"})},
		{Username: "agent", Password: password, Permissions: rights(
			[]string{"hm.agent.heartbeat." + agentID, "hm.agent.alert." + agentID, "hm.agent.shutdown." + agentID, "director.*." + agentID + ".*"},
			[]string{"agent." + agentID})},
	}
	bus, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, Users: users, NoSigs: true, NoLog: true})
	if err != nil {
		return nil, err
	}
	bus.Start()
	s.later(func() error { bus.Shutdown(); bus.WaitForShutdown(); return nil })
	if !bus.ReadyForConnections(endWait) {
		return nil, fmt.Errorf("the message bus does not start")
	}
	return bus, nil
}

func rights(publish, subscribe []string) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publish},
		Subscribe: &server.SubjectPermission{Allow: subscribe},
	}
}

// url is where a user finds the bus.
func url(bus *server.Server, user string) string {
	return fmt.Sprintf("nats://%s:%s@%s", user, password, bus.Addr())
}

// daemon is the running daemon.
type daemon struct {
	config  string // its configuration's text
	metrics string // host:port
}

const configuration = `enable_snapshots: true
state_dir: %[1]s/state
listen: {socket: %[1]s/run/quiesced.sock, metrics: "%[2]s"}
instance: {deployment: demo, job: db, index: 0, id: %[3]s, agent_id: %[3]s}
disks: [{cid: %[4]s, mounts: [%[5]s]}]
cpi:
  path: %[6]s
  context: {root: %[7]s/cpi}
  release_on_stderr: "snapshot '[^']+' of disk '{disk_cid}' created"
nats: {urls: ["%[8]s"]}
`

// startDaemon starts "quiesced serve" and waits until it answers.
func (s *stage) startDaemon(ctx context.Context, bus *server.Server) (*daemon, error) {
	metrics, err := freeAddress()
	if err != nil {
		return nil, err
	}
	d := &daemon{metrics: metrics}
	d.config = fmt.Sprintf(configuration, s.dir, metrics, agentID, s.disk, s.store, sibling("local-cpi"), s.host, url(bus, "agent"))
	file := filepath.Join(s.dir, "quiesced.yml")
	if err := os.WriteFile(file, []byte(d.config), 0o600); err != nil {
		return nil, err
	}
	logFile, err := os.Create(filepath.Join(s.dir, "quiesced.log"))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(sibling("quiesced"), "serve", "--config", file)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's interrupt is for the demonstration
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.later(func() error { defer func() { _ = logFile.Close() }(); return end(cmd) })
	s.say("2. The daemon, on a message bus with a director's rules")
	s.show("%s", strings.ReplaceAll(d.config, password, "…"))
	return d, s.awaitDaemon(ctx, logFile.Name())
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

func (s *stage) awaitDaemon(ctx context.Context, logFile string) error {
	client := api.Client{Caller: httpapi.NewClient(filepath.Join(s.dir, "run", "quiesced.sock"))}
	limit, cancel := context.WithTimeout(ctx, endWait)
	defer cancel()
	for {
		if _, err := client.Info(limit); err == nil {
			return nil
		}
		select {
		case <-limit.Done():
			text, _ := os.ReadFile(logFile)
			return fmt.Errorf("the daemon does not answer; it says:\n%s", text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// connect joins the bus as the director.
func connect(bus *server.Server) (*natsapi.Client, func(), error) {
	conn, err := nats.Connect(url(bus, "director"))
	if err != nil {
		return nil, nil, err
	}
	config := natsapi.Config{Subject: "agent." + agentID, Prefix: "quiesced_", AgentID: agentID}
	return natsapi.NewClient(conn, config, directorUUID), conn.Close, nil
}

// showMetrics scrapes the daemon as Prometheus does.
func (s *stage) showMetrics(ctx context.Context, d *daemon) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.metrics+"/metrics", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	s.say("6. What Prometheus scrapes from http://%s/metrics", d.metrics)
	for line := range strings.Lines(string(text)) {
		for _, name := range []string{"quiesced_runs_total", "quiesced_frozen_seconds_total", "quiesced_snapshots{", "quiesced_last_clean"} {
			if strings.HasPrefix(line, name) && !strings.HasSuffix(line, " 0\n") {
				s.show("%s", line)
			}
		}
	}
	return nil
}
