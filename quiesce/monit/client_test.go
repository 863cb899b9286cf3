package monit_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/jobs/jobstest"
	"github.com/quiesced/quiesced/quiesce/monit"
	"github.com/quiesced/quiesced/quiesce/monit/monittest"
)

const minute = time.Minute

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// serve has a real monit with services of jobstest, all of which run.
func serve(t *testing.T, rules string, services ...jobstest.Service) (*realBed, jobs.Supervisor) {
	t.Helper()
	t.Parallel()
	b := &realBed{dir: t.TempDir(), rules: rules}
	b.Define(t, services...)
	c := b.Supervisor()
	for _, s := range services {
		if !s.Broken {
			until(t, c, s.Name, jobs.Running)
		}
	}
	return b, c
}

func until(t testing.TB, c jobs.Supervisor, name string, state jobs.State) {
	t.Helper()
	for range 2000 {
		all, err := c.Services(within(t, minute))
		must(t, err)
		for _, s := range all {
			if s.Name == name && s.State == state {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s does not come to be %s", name, state)
}

func TestWhatMonitHasGivenUpIsAnErrorAtOnce(t *testing.T) {
	s := jobstest.Service{Name: "a", Broken: true}
	_, c := serve(t, "if 1 restart within 3 cycles then unmonitor", s)
	begun := time.Now()
	err := c.Start(within(t, minute), []string{"a"}, nil)
	if !errors.Is(err, jobs.ErrNotRunning) || time.Since(begun) > minute/2 {
		t.Errorf("it answers %v after %s", err, time.Since(begun))
	}
}

func TestAServiceThatIsNotMonitoredAndRunsIsUnmonitored(t *testing.T) {
	s := jobstest.Service{Name: "a", Children: 1}
	b, c := serve(t, "", s)
	must(t, c.Unmonitor(within(t, minute), []string{"a"}))
	until(t, b.Supervisor(), "a", jobs.Unmonitored) // also to a client that has not seen it before
	s.KillAll(t, b.dir)
	until(t, b.Supervisor(), "a", jobs.Stopped)
}

// PostgreSQL writes more lines below the pid. Monit reads the first.
func TestAPIDFileMaySayMoreThanThePID(t *testing.T) {
	s := jobstest.Service{Name: "a"}
	b, c := serve(t, "", s)
	must(t, c.Unmonitor(within(t, minute), []string{"a"}))
	pid, err := os.ReadFile(b.monit.PIDFile("a"))
	must(t, err)
	must(t, os.WriteFile(b.monit.PIDFile("a"), append(pid, "/var/vcap/store/postgres\n1790000000\n5432\n/var/vcap/sys/run/postgres\n\nready   \n"...), 0o600))
	until(t, b.Supervisor(), "a", jobs.Unmonitored)
}

// The pid of a file that is older than the process is another's.
func TestAnOldPIDFileNamesNoProcess(t *testing.T) {
	s := jobstest.Service{Name: "a"}
	b, c := serve(t, "", s)
	must(t, c.Unmonitor(within(t, minute), []string{"a"}))
	old := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(b.monit.PIDFile("a"), old, old))
	until(t, b.Supervisor(), "a", jobs.Stopped)
}

func TestAServiceThatMonitForgotIsStoppedWhenItsProcessesHaveEnded(t *testing.T) {
	s := jobstest.Service{Name: "a"}
	b, c := serve(t, "", s)
	listed, err := c.Services(within(t, minute))
	must(t, err)
	must(t, b.monit.Kill())
	must(t, b.monit.Configure())
	must(t, b.monit.Restart())
	if err := c.Stop(within(t, minute), listed, nil); !errors.Is(err, jobs.ErrNoService) {
		t.Errorf("while it runs: %v", err)
	}
	s.KillAll(t, b.dir)
	must(t, c.Stop(within(t, minute), listed, nil))
}

func TestTheUserFileIsReadAgain(t *testing.T) {
	b, c := serve(t, "", jobstest.Service{Name: "a"})
	right, err := os.ReadFile(b.monit.UserFile)
	must(t, err)
	must(t, os.WriteFile(b.monit.UserFile, []byte("vcap:wrong"), 0o600))
	if _, err := c.Services(within(t, minute)); !errors.Is(err, jobs.ErrUnreachable) || !strings.Contains(err.Error(), b.monit.UserFile) {
		t.Errorf("with a wrong one it answers %v", err)
	}
	must(t, os.WriteFile(b.monit.UserFile, right, 0o600))
	must(t, c.Unmonitor(within(t, minute), []string{"a"}))
}

func TestOthersGroupsAreNobodysService(t *testing.T) {
	b, _ := serve(t, "", jobstest.Service{Name: "a"})
	c := monit.New(monit.Config{URL: b.monit.URL, UserFile: b.monit.UserFile, Group: "others"})
	jobstest.RunEmpty(t, c)
	if err := c.Stop(within(t, minute), []jobs.Service{{Name: "a"}}, nil); !errors.Is(err, jobs.ErrNoService) {
		t.Errorf("it answers %v", err)
	}
}

func TestAServiceThatMonitDoesNotLookAtEachRoundIsRunningBetween(t *testing.T) {
	_, c := serve(t, "every 3 cycles", jobstest.Service{Name: "a"})
	for range 40 {
		all, err := c.Services(within(t, minute))
		must(t, err)
		if all[0].State != jobs.Running {
			t.Fatalf("it is %+v", all[0])
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// A listener whose queue is full answers no SYN, as a firewall that drops.
func TestAFirewallIsNamed(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(t, unix.Listen(fd, 0))
	name, err := unix.Getsockname(fd)
	must(t, err)
	addr := (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*unix.SockaddrInet4).Port}).String()
	for range 8 {
		if held, err := net.DialTimeout("tcp", addr, 200*time.Millisecond); err == nil {
			t.Cleanup(func() { _ = held.Close() })
		}
	}
	user := filepath.Join(t.TempDir(), "user")
	must(t, os.WriteFile(user, []byte("a:b"), 0o600))
	_, err = monit.New(monit.Config{URL: "http://" + addr, UserFile: user}).Services(within(t, minute))
	if !errors.Is(err, jobs.ErrUnreachable) || !strings.Contains(err.Error(), "firewall") {
		t.Errorf("it answers %v", err)
	}
}

// A monit that takes one service a request is asked for each.
func TestServicesAreAskedForOneByOneWhereTheyHaveTo(t *testing.T) {
	old := openOld(t).(oldBed)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/_doaction" {
			http.NotFound(w, r)
			return
		}
		old.handler().ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	services := []jobstest.Service{{Name: "a"}, {Name: "b"}}
	old.Define(t, services...)
	c := monit.New(monit.Config{URL: proxy.URL, UserFile: old.userFile()})
	for _, s := range services {
		until(t, c, s.Name, jobs.Running)
	}
	must(t, c.Stop(within(t, minute), []jobs.Service{{Name: "a"}, {Name: "b"}}, nil))
	for _, s := range services {
		if left := s.Running(t, old.dir); len(left) != 0 {
			t.Errorf("%s runs: %v", s.Name, left)
		}
	}
}

func TestMonitsThatCannotStartSayWhy(t *testing.T) {
	_, err := monittest.Start(t.TempDir(), monittest.Service{Name: "no\nname", Rules: "nonsense"})
	if err == nil || !strings.Contains(err.Error(), "cannot start monit") {
		t.Errorf("it answers %v", err)
	}
}
