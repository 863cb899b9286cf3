package monittest

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Service is one process service.
type Service struct {
	Name    string
	Program string        // runs in the foreground until SIGTERM; no arguments
	Start   string        // if it starts in another way, that command; it writes PIDFile
	Stop    string        // the command that stops it; "" for SIGTERM to what PIDFile names
	PIDFile string        // "" for Monit.PIDFile
	Timeout time.Duration // what monit grants to start and stop, whole seconds; 0 for monit's 30
	Group   string        // "" for vcap
	Rules   string        // more lines of the check
}

// Monit is a running monit.
type Monit struct {
	URL      string
	UserFile string

	dir    string
	port   int
	cycle  time.Duration
	reaper *exec.Cmd
	orders io.WriteCloser // a line to the reaper starts monit
	pids   *bufio.Reader  // of the monits that it started
	pid    int
}

// Start has a monit supervise services, below dir, and returns when it answers. It
// looks after them every second.
func Start(dir string, services ...Service) (*Monit, error) {
	return StartCycle(dir, time.Second, services...)
}

// StartCycle is Start of a monit that looks after its services as often as cycle says,
// in whole seconds.
func StartCycle(dir string, cycle time.Duration, services ...Service) (*Monit, error) {
	path, err := Binary()
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	m := &Monit{
		URL:      "http://127.0.0.1:" + strconv.Itoa(port),
		UserFile: filepath.Join(dir, "monit.user"),
		dir:      dir, port: port, cycle: cycle,
	}
	if err := os.WriteFile(m.UserFile, []byte("vcap:random-password\n"), 0o600); err != nil {
		return nil, err
	}
	if err := m.Configure(services...); err != nil {
		return nil, err
	}
	if err := m.startReaper(path, "-I", "-c", m.config()); err != nil {
		return nil, err
	}
	if err := m.Restart(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *Monit) config() string { return filepath.Join(m.dir, "monitrc") }

// output is where monit's standard streams go.
func (m *Monit) output() string { return filepath.Join(m.dir, "monit.out") }

// PIDFile is where a service's pid is that says nothing else.
func (m *Monit) PIDFile(service string) string { return filepath.Join(m.dir, service+".pid") }

// Configure writes the configuration, of which monit takes notice when it starts.
func (m *Monit) Configure(services ...Service) error {
	var rc strings.Builder
	fmt.Fprintf(&rc, "set daemon %d\nset idfile %q\nset statefile %q\nset pidfile %q\nset logfile %q\n",
		int(m.cycle.Seconds()),
		m.dir+"/monit.id", m.dir+"/monit.state", m.dir+"/monit.pid", m.Log())
	fmt.Fprintf(&rc, "set httpd port %d and use address 127.0.0.1\n  allow vcap:random-password\n", m.port)
	for _, s := range services {
		if err := m.check(&rc, s); err != nil {
			return err
		}
	}
	return os.WriteFile(m.config(), []byte(rc.String()), 0o600)
}

// check writes a service's part of the configuration, and the scripts that it names.
func (m *Monit) check(rc io.Writer, s Service) error {
	pidFile := cmp.Or(s.PIDFile, m.PIDFile(s.Name))
	start, stop := s.Start, s.Stop
	if start == "" {
		start = fmt.Sprintf("%q </dev/null >/dev/null 2>&1 &\necho $! > %q.new && mv %q.new %q", s.Program, pidFile, pidFile, pidFile)
	}
	if stop == "" {
		stop = fmt.Sprintf("kill $(cat %q)", pidFile)
	}
	syscall.ForkLock.RLock() // no process that another test starts may inherit what is written to
	defer syscall.ForkLock.RUnlock()
	for name, text := range map[string]string{"start": start, "stop": stop} {
		if err := os.WriteFile(m.script(s, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			return err
		}
	}
	timeout, group := s.Timeout, s.Group
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	if group == "" {
		group = "vcap"
	}
	_, err := fmt.Fprintf(rc, "check process %s with pidfile %q\n  start program %q with timeout %d seconds\n  stop program %q with timeout %d seconds\n  group %s\n%s\n",
		s.Name, pidFile, m.script(s, "start"), int(timeout.Seconds()), m.script(s, "stop"), int(timeout.Seconds()), group, s.Rules)
	return err
}

func (m *Monit) script(s Service, name string) string {
	return filepath.Join(m.dir, s.Name+"."+name)
}

// Log is the path of monit's log.
func (m *Monit) Log() string { return filepath.Join(m.dir, "monit.log") }

func (m *Monit) startReaper(command ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	m.reaper = exec.Command(self, command...)
	m.reaper.Env = append(os.Environ(), reaperVariable+"="+m.output())
	m.reaper.Stderr = os.Stderr
	if m.orders, err = m.reaper.StdinPipe(); err != nil {
		return err
	}
	out, err := m.reaper.StdoutPipe()
	if err != nil {
		return err
	}
	m.pids = bufio.NewReader(out)
	return m.reaper.Start()
}

// Begin starts monit again, and does not wait for it to answer.
func (m *Monit) Begin() error {
	if _, err := io.WriteString(m.orders, "start\n"); err != nil {
		return fmt.Errorf("cannot start monit: %w", err)
	}
	line, err := m.pids.ReadString('\n')
	if err != nil {
		return fmt.Errorf("cannot start monit: %w", err)
	}
	m.pid, err = strconv.Atoi(strings.TrimSpace(line))
	return err
}

// Restart starts monit again, and returns when it answers.
func (m *Monit) Restart() error {
	if err := m.Begin(); err != nil {
		return err
	}
	for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get(m.URL)
		if err == nil {
			_ = resp.Body.Close()
			return nil
		}
		if unix.Kill(m.pid, 0) != nil {
			break
		}
	}
	said, _ := os.ReadFile(m.output())
	return fmt.Errorf("cannot start monit at %s:\n%s", m.URL, said)
}

// Kill ends monit at once, and returns when it has ended. Services go on.
func (m *Monit) Kill() error {
	fd, err := unix.PidfdOpen(m.pid, 0)
	if err != nil {
		return fmt.Errorf("cannot kill monit: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.PidfdSendSignal(fd, syscall.SIGKILL, nil, 0); err != nil {
		return fmt.Errorf("cannot kill monit: %w", err)
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Close ends monit and all that it has started.
func (m *Monit) Close() error {
	return errors.Join(m.orders.Close(), m.reaper.Wait())
}

// freePort is a port of loopback that nobody listens at.
func freePort() (int, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Binary is the path of the monit that is run.
func Binary() (string, error) {
	if path, err := exec.LookPath("monit"); err == nil {
		return path, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
			continue
		}
		path := filepath.Join(dir, "build/testbed/usr/bin/monit")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("cannot find monit in PATH or build/testbed: run make deps")
}
