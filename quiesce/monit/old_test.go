package monit_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/jobs/jobstest"
	"github.com/quiesced/quiesced/quiesce/jobs/processes"
	"github.com/quiesced/quiesced/quiesce/monit"
)

// oldMonit is a supervisor of real processes that shows them as monit 5.2.5 does.
type oldMonit struct {
	dir  string
	addr string

	mu       sync.Mutex // guards what follows, and services' fields
	services []*oldService
	runs     int // how often it was started

	wake chan bool
	stop context.CancelFunc
	done sync.WaitGroup
	http *http.Server
}

// oldService is a service of it. Its pid is in a file.
type oldService struct {
	name, program string
	group         string
	timeout       time.Duration
	monitor       int
	status        int
	pending       int
	pid           int       // as the last check found it
	initializing  time.Time // until when it is not looked at
	forgotten     bool      // its test has ended
}

const (
	oldStop, oldUnmonitor, oldStart, oldMonitor = 3, 5, 6, 7
	oldUser                                     = "vcap:geh\xe4im" // no UTF-8
)

var oldActions = map[string]int{"stop": oldStop, "unmonitor": oldUnmonitor, "start": oldStart, "monitor": oldMonitor}

func (m *oldMonit) begin(t testing.TB) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", m.addr)
	must(t, err)
	m.addr = l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	m.stop, m.wake = stop, make(chan bool, 1)
	m.http = &http.Server{Handler: m.handler(), ReadHeaderTimeout: time.Minute}
	m.mu.Lock()
	m.runs++
	for _, s := range m.services { // its state file has what is monitored, and no more
		s.pending, s.status, s.pid, s.monitor = 0, 0, 0, 2*min(s.monitor, 1)
	}
	m.mu.Unlock()
	m.done.Go(func() { _ = m.http.Serve(l) })
	m.done.Go(func() { m.loop(ctx) })
}

// end is that of kill -9.
func (m *oldMonit) end() {
	m.stop()
	_ = m.http.Close()
	m.done.Wait()
}

// loop works off what is pending and looks after services, one after the other.
func (m *oldMonit) loop(ctx context.Context) {
	for ctx.Err() == nil {
		m.mu.Lock()
		for _, s := range m.services {
			m.turn(ctx, s)
		}
		m.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-m.wake:
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (m *oldMonit) turn(ctx context.Context, s *oldService) {
	if s.forgotten || ctx.Err() != nil {
		return
	}
	switch s.pending {
	case oldStop:
		m.stopService(ctx, s)
	case oldStart:
		m.startService(ctx, s)
	case oldMonitor:
		s.monitor, s.status = 2, 0
	case oldUnmonitor:
		s.monitor, s.status = 0, 0
	default:
		if s.monitor != 0 && time.Now().After(s.initializing) {
			m.check(ctx, s)
		}
	}
	if ctx.Err() == nil {
		s.pending = 0
	}
}

func (m *oldMonit) check(ctx context.Context, s *oldService) {
	if p, ok := m.process(s); ok {
		s.monitor, s.status, s.pid = 1, 0, p.PID
		return
	}
	s.status |= 0x200
	m.startService(ctx, s)
}

func (m *oldMonit) startService(ctx context.Context, s *oldService) {
	if _, ok := m.process(s); !ok {
		m.spawn(s)
		m.wait(ctx, 100*time.Millisecond, func() bool { return false })
		if ctx.Err() != nil {
			return // it was killed, and what it has not noted is lost
		}
		if _, ok := m.process(s); !ok {
			s.monitor, s.status, s.pid = 1, 0x1200, 0
			return
		}
	}
	s.monitor, s.status, s.pid, s.initializing = 2, 0, 0, time.Now().Add(300*time.Millisecond)
}

// spawn starts the program, as a child that is reaped when it ends.
func (m *oldMonit) spawn(s *oldService) {
	cmd := exec.Command(s.program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if cmd.Start() != nil {
		return
	}
	_ = os.WriteFile(m.pidFile(s), []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o644)
	go func() { _ = cmd.Wait() }()
}

func (m *oldMonit) stopService(ctx context.Context, s *oldService) {
	s.monitor, s.status, s.pid = 0, 0, 0
	p, ok := m.process(s)
	if !ok {
		return
	}
	_ = syscall.Kill(p.PID, syscall.SIGTERM)
	if !m.wait(ctx, s.timeout, func() bool { return !processes.Alive(p) }) {
		s.status = 0x1000
	}
}

// wait is that of a program that monit has started: it answers requests meanwhile.
func (m *oldMonit) wait(ctx context.Context, d time.Duration, is func() bool) bool {
	m.mu.Unlock()
	defer m.mu.Lock()
	for until := time.Now().Add(d); !is(); time.Sleep(10 * time.Millisecond) {
		if ctx.Err() != nil || time.Now().After(until) {
			return false
		}
	}
	return true
}

func (m *oldMonit) pidFile(s *oldService) string { return filepath.Join(m.dir, s.name+".pid") }

func (m *oldMonit) process(s *oldService) (jobs.Process, bool) {
	b, _ := os.ReadFile(m.pidFile(s))
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return jobs.Process{}, false
	}
	return processes.Find(pid)
}

func (m *oldMonit) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_status2", m.showAll)
	mux.HandleFunc("POST /_doaction", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		m.do(w, r, r.PostForm["service"])
	})
	mux.HandleFunc("POST /{service}", func(w http.ResponseWriter, r *http.Request) {
		m.do(w, r, []string{r.PathValue("service")})
	})
	mux.HandleFunc("GET /{service}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "<tr><td>Pid file</td><td>%s</td></tr>", m.pidFile(&oldService{name: r.PathValue("service")}))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, password, _ := r.BasicAuth(); name+":"+password != oldUser {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		mux.ServeHTTP(w, r)
	})
}

// do takes an action for one service after the other, and stops at the first that it
// cannot take.
func (m *oldMonit) do(w http.ResponseWriter, r *http.Request, names []string) {
	action, ok := oldActions[r.PostFormValue("action")]
	if !ok {
		http.Error(w, "Invalid action", http.StatusBadRequest)
		return
	}
	for _, name := range names {
		s := m.find(name)
		switch {
		case s == nil:
			http.Error(w, "There is no service by that name", http.StatusNotFound)
			return
		case s.pending != 0:
			http.Error(w, "Other action already in progress -- please try again later", http.StatusServiceUnavailable)
			return
		case action == oldStop:
			s.monitor = 0
		}
		s.pending = action
	}
	select {
	case m.wake <- true:
	default:
	}
}

func (m *oldMonit) find(name string) *oldService {
	for _, s := range m.services {
		if s.name == name {
			return s
		}
	}
	return nil
}

func (m *oldMonit) showAll(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><monit id=\"c5c6\" incarnation=\"%d\" version=\"5.2.5\">"+
		"<server><uptime>7</uptime><poll>1</poll><localhostname>h\xf6st</localhostname></server><services>", m.runs)
	var members strings.Builder
	for _, s := range m.services {
		fmt.Fprintf(w, "<service name=\"%s\"><type>3</type><status>%d</status><status_hint>0</status_hint><monitor>%d</monitor>"+
			"<monitormode>0</monitormode><pendingaction>%d</pendingaction><groups><name>%s</name></groups>%s</service>",
			s.name, s.status, s.monitor, s.pending, s.group, s.shown())
		fmt.Fprintf(&members, "<servicegroup name=\"%s\"><service>%s</service></servicegroup>", s.group, s.name)
	}
	fmt.Fprintf(w, "<service name=\"system_h\xf6st\"><type>5</type><status>0</status><monitor>1</monitor><pendingaction>0</pendingaction></service>"+
		"</services><servicegroups>%s</servicegroups></monit>", &members)
}

// shown is what is shown of a process, and of failures.
func (s *oldService) shown() string {
	var out string
	if s.status != 0 {
		out = "<status_message>failed to stop or start</status_message>"
	}
	if s.monitor == 1 && s.pid != 0 {
		out += fmt.Sprintf("<pid>%d</pid><ppid>1</ppid><uptime>3</uptime>", s.pid)
	}
	return out
}

// oldBed is a bed of the conformance suite.
type oldBed struct{ *oldMonit }

func openOld(t *testing.T) jobstest.Bed {
	t.Parallel()
	m := &oldMonit{dir: t.TempDir(), addr: "127.0.0.1:0"}
	must(t, os.WriteFile(m.userFile(), []byte(oldUser+"\n"), 0o600))
	m.begin(t)
	t.Cleanup(m.end)
	return oldBed{m}
}

func (m *oldMonit) userFile() string { return filepath.Join(m.dir, "monit.user") }

func (b oldBed) Dir() string { return b.dir }

func (b oldBed) Supervisor() jobs.Supervisor {
	return monit.New(monit.Config{URL: "http://" + b.addr, UserFile: b.userFile()})
}

func (b oldBed) Cut(testing.TB)       { b.end() }
func (b oldBed) Restore(t testing.TB) { t.Helper(); b.begin(t) }

func (b oldBed) Define(t testing.TB, services ...jobstest.Service) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range services {
		program, err := s.Install(b.dir)
		must(t, err)
		defined := &oldService{name: s.Name, program: program, group: "vcap", timeout: 30 * time.Second, monitor: 2}
		if s.IgnoresStop {
			defined.timeout = time.Second
		}
		b.services = append(b.services, defined)
		t.Cleanup(func() {
			b.mu.Lock()
			defined.forgotten = true
			b.mu.Unlock()
			s.KillAll(t, b.dir)
		})
	}
}
