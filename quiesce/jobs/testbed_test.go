package jobs_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
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
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Println("these tests need root: they make control groups and mount filesystems")
		os.Exit(1)
	}
	if len(os.Args) == 4 && os.Args[1] == "daemon" {
		os.Exit(playDaemon(os.Args[2], os.Args[3]))
	}
	os.Exit(m.Run())
}

// playDaemon is this test binary run as a daemon: it runs the scripts of a name,
// for two seconds at most if they are in the way, and prints how that went.
func playDaemon(root, name string) int {
	r := &jobs.Runner{Layout: jobs.Layout{Root: root}, Log: slog.New(slog.DiscardHandler)}
	scripts, err := r.Layout.Scripts(name)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	budget := 2 * time.Second
	if name == jobs.Lock { // those are to be at work when this process is killed
		budget = time.Hour
	}
	fmt.Println(r.Run(context.Background(), scripts, budget, nil))
	return 0
}

// site is a place for jobs.
type site struct {
	*jobs.Runner
	t    testing.TB
	root string
	log  *warnings
}

// newSite makes a place for jobs, and checks at the end that no control group of
// its scripts is left.
func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{t: t, root: t.TempDir(), log: &warnings{}}
	s.Runner = &jobs.Runner{
		Layout: jobs.Layout{Root: s.root, Own: "quiesced", Hooks: s.root + "/hooks"},
		Log:    slog.New(slog.NewTextHandler(s.log, nil)),
	}
	t.Cleanup(func() {
		if left := s.Layout.Cgroups(); len(left) > 0 {
			t.Errorf("these control groups are left: %q", left)
		}
	})
	return s
}

// script writes a script of a job, which lies elsewhere and is linked, as on a BOSH
// VM. DIR in it stands for a directory that they have in common.
func (s *site) script(job, name, text string) jobs.Script {
	s.t.Helper()
	at := filepath.Join(s.root, "data/jobs", job, "bin", name)
	if job == "" {
		at = filepath.Join(s.root, "hooks", filepath.Base(name))
	}
	write(s.t, at, "#!/bin/sh\n"+strings.ReplaceAll(text, "DIR", s.root)+"\n")
	must(s.t, os.Chmod(at, 0o755))
	if job == "" {
		return jobs.Script{Name: name, Path: at}
	}
	s.link(job)
	return jobs.Script{Job: job, Name: name, Path: filepath.Join(s.root, "jobs", job, "bin", name)}
}

func (s *site) link(job string) {
	s.t.Helper()
	must(s.t, os.MkdirAll(s.root+"/jobs", 0o755))
	if err := os.Symlink("../data/jobs/"+job, s.root+"/jobs/"+job); err != nil && !os.IsExist(err) {
		s.t.Fatal(err)
	}
}

// run runs one script for as long as it takes.
func (s *site) run(script jobs.Script) error {
	return s.Run(context.Background(), []jobs.Script{script}, time.Minute, nil)
}

func (s *site) read(path string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.root, path))
	must(s.t, err)
	return string(text)
}

// pid is that which a script has written to a file.
func (s *site) pid(name string) int {
	s.t.Helper()
	var pid int
	eventually(s.t, func() bool {
		text, _ := os.ReadFile(filepath.Join(s.root, name))
		var err error
		pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil && strings.HasSuffix(string(text), "\n")
	}, "no process writes its id to %s", name)
	return pid
}

// warnings are what was logged.
type warnings struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (w *warnings) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *warnings) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// alive says whether a process has not ended, waited for or not.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(text), ") Z ")
}

// endLater ends a process with the test, and its process group if it leads one.
func endLater(t testing.TB, pid int) {
	t.Cleanup(func() {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	})
}

func cgroupOf(t testing.TB, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSpace(path)
		}
	}
	t.Fatalf("process %d has no control group", pid)
	return ""
}

func eventually(t testing.TB, done func() bool, format string, args ...any) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf(format, args...)
		}
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantError compares an error's text; "" stands for none. DIR is the site's.
func (s *site) wantError(err error, want string) {
	s.t.Helper()
	got := ""
	if err != nil {
		got = strings.ReplaceAll(err.Error(), s.root, "DIR")
	}
	if got != want {
		s.t.Errorf("got  %s\nwant %s", got, want)
	}
}
