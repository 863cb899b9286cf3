// Package apitest makes what the tests of the transports stand on: a daemon
// with a real agent and journal, a disk that is a mounted tmpfs and a CPI that
// is a script under the test's control, and a message bus with a director's
// rights. It needs root.
package apitest

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/audit"
	"github.com/quiesced/quiesced/agent/journal"
	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/metrics"
	"github.com/quiesced/quiesced/quiesce"
	"github.com/quiesced/quiesced/quiesce/guard"
	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// Who the daemon is.
const (
	AgentID = "11111111-aaaa-4bbb-8ccc-000000000001"
	DiskCID = "disk-1"
)

// patience bounds every wait for something that is about to happen.
const patience = 20 * time.Second

// Daemon is a daemon without a transport.
type Daemon struct {
	Agent   *agent.Agent
	Handler *api.Handler
	Mount   string // of the disk
	dir     string // where the CPI finds what it is to do
	parts   agent.Parts
	records *journal.Journal

	mu      sync.Mutex
	audited []audit.Event // guarded by mu
}

// script is the CPI. It notes every request, waits while there is a file
// "hold-METHOD" and the test that waits for it, and answers what is in "answer-METHOD"
// where that is there.
const script = `#!/bin/sh
cd '%s' || exit 1
request=$(cat)
case $request in
'{"method":"info"'*) method=info ;;
'{"method":"snapshot_disk"'*'"api_version":2}') method=snapshot_disk ;;
'{"method":"delete_snapshot"'*) method=delete_snapshot ;;
'{"method":"create_disk"'*'"api_version":2}') method=create_disk ;;
'{"method":"detach_disk"'*) method=detach_disk ;;
'{"method":"delete_disk"'*) method=delete_disk ;;
'{"method":"list_snapshots"'*) method=list_snapshots ;;
*) exit 1 ;; # cut short
esac
printf '%%s\n' "$request" >> "requests-$method"
while [ -e "hold-$method" ] && [ -e /proc/%d ]; do sleep 0.02; done
if [ -e "answer-$method" ]; then cat "answer-$method"; exit; fi
case $method in
info) result='{"api_version":2,"stemcell_formats":[]}' ;;
snapshot_disk) result="\"snap-$(wc -l < requests-snapshot_disk)\"" ;;
create_disk) result="\"scratch-$(wc -l < requests-create_disk)\"" ;;
*) result=null ;;
esac
printf '{"result":%%s,"error":null,"log":""}' "$result"
`

// Start makes a daemon that takes snapshots at level none, unless its settings
// are changed.
func Start(t testing.TB, change ...func(*agent.Settings)) *Daemon {
	t.Helper()
	mount := filepath.Join(t.TempDir(), "store")
	must(t, os.Mkdir(mount, 0o700))
	must(t, unix.Mount("apitest", mount, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { must(t, unix.Unmount(mount, 0)) })
	return start(t, mount, nil, nil, agent.LevelNone, change)
}

// StartFreezing makes a daemon that freezes its disk, a real ext4.
func StartFreezing(t testing.TB, change ...func(*agent.Settings)) *Daemon {
	t.Helper()
	return StartSupervised(t, nil, change...)
}

// StartSupervised makes a daemon that freezes its disk and has a supervisor, nil
// for none.
func StartSupervised(t testing.TB, s jobs.Supervisor, change ...func(*agent.Settings)) *Daemon {
	t.Helper()
	dir := t.TempDir()
	binary, err := guardBinary()
	must(t, err)
	disk, err := loopfs.Make(dir, "store", "ext4", 16<<20)
	must(t, err)
	t.Cleanup(func() { must(t, disk.Close()) })
	thawed, err := loopfs.ThawAfter(disk.Mount, patience)
	must(t, err)
	t.Cleanup(thawed)
	return start(t, disk.Mount, binary, s, agent.LevelFreeze, change)
}

// guardBinary builds the guard, once. It is run through its descriptor, so nothing
// of it stays in the file system.
var guardBinary = sync.OnceValues(func() (*guard.Binary, error) {
	dir, err := os.MkdirTemp("", "apitest-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	executable := filepath.Join(dir, "quiesced-guard")
	build := exec.Command("go", "build", "-o", executable, "github.com/quiesced/quiesced/cmd/quiesced-guard")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot build the guard: %w: %s", err, out)
	}
	return guard.OpenBinary(executable)
})

func start(t testing.TB, mount string, binary *guard.Binary, s jobs.Supervisor, level agent.Level, change []func(*agent.Settings)) *Daemon {
	t.Helper()
	dir := t.TempDir()
	d := &Daemon{dir: filepath.Join(dir, "cpi"), Mount: mount}
	must(t, os.Mkdir(d.dir, 0o700))
	executable := filepath.Join(d.dir, "cpi")
	writeProgram(t, executable, fmt.Sprintf(script, d.dir, os.Getpid()))

	settings := agent.Settings{
		Enabled:  true,
		Instance: agent.Instance{Deployment: "cf", Job: "db", Index: 2, ID: "inst-1", AgentID: AgentID},
		Disks:    []quiesce.Disk{{CID: DiskCID, Mounts: []string{d.Mount}}},
		Levels:   map[agent.Trigger]agent.Level{},
		Budgets: agent.Budgets{
			PreStop: patience, Drain: patience, Stop: patience, Lock: patience,
			PreSync: patience, Frozen: patience, Snapshot: time.Minute, Verify: time.Minute, Resume: patience,
		},
		GoneMessage: agent.GoneMessage,
		StateDir:    filepath.Join(dir, "state"),
	}
	for _, trigger := range agent.Triggers() {
		settings.Levels[trigger] = level
	}
	for _, c := range change {
		c(&settings)
	}
	d.start(t, agent.Parts{
		Settings: settings,
		Supervised: agent.Supervised{
			Supervisor: s,
			Scripts:    &jobs.Runner{Layout: settings.Processes.Layout, Log: slog.New(slog.DiscardHandler)},
			Held:       journal.HeldFile{Path: filepath.Join(dir, "jobs-held.json")},
			YieldFile:  filepath.Join(dir, "yielded"),
		},
		Scratch: journal.ScratchFile{Path: filepath.Join(settings.StateDir, "verification.json")},
		Freezer: &quiesce.Freezer{Binary: binary, Dir: filepath.Join(dir, "run")},
		CPI:     &cpi.Client{Path: executable},
		Log:     slog.New(slog.DiscardHandler),
	})
	return d
}

// writeProgram writes a file that can be executed at once: a child that another test forks
// meanwhile would have it open for writing still.
func writeProgram(t testing.TB, path, text string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	must(t, os.WriteFile(path, []byte(text), 0o700))
}

func (d *Daemon) start(t testing.TB, parts agent.Parts) {
	t.Helper()
	d.parts = parts
	d.open(t)
	t.Cleanup(func() { d.settle(t); d.close(t) })
}

// open makes the agent and has it go on with what an earlier one left.
func (d *Daemon) open(t testing.TB) {
	t.Helper()
	var err error
	d.records, err = journal.Open(d.parts.Settings.StateDir)
	must(t, err)
	m := metrics.New()
	d.parts.Journal, d.parts.Observer = d.records, m
	d.Agent = agent.New(d.parts)
	must(t, d.Agent.Recover(nil, nil))
	must(t, m.Watch(d.Agent))
	d.Handler = &api.Handler{Agent: d.Agent, Version: "v1-test", Samples: metrics.Samples, Metrics: m.Text, Audit: d.audit}
}

func (d *Daemon) audit(e audit.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.audited = append(d.audited, e)
}

// Audited is what the audit has been told.
func (d *Daemon) Audited() []audit.Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.audited)
}

func (d *Daemon) close(t testing.TB) {
	t.Helper()
	d.Agent.Close()
	must(t, d.records.Close())
}

// Restart ends the daemon and starts it again. What serves it goes on serving the old
// one.
func (d *Daemon) Restart(t testing.TB) {
	t.Helper()
	d.close(t)
	d.open(t)
}

// settle lets everything that is under way end.
func (d *Daemon) settle(t testing.TB) {
	t.Helper()
	for _, method := range []string{"info", "snapshot_disk", "delete_snapshot", "create_disk"} {
		d.Release(t, method)
	}
	Eventually(t, "the daemon is idle", func() bool {
		s, err := d.Agent.Status()
		must(t, err)
		return s.Work == ""
	})
}

// Hold has the CPI wait in a method until Release.
func (d *Daemon) Hold(t testing.TB, method string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(d.dir, "hold-"+method), nil, 0o600))
}

// Release ends Hold.
func (d *Daemon) Release(t testing.TB, method string) {
	t.Helper()
	must(t, os.RemoveAll(filepath.Join(d.dir, "hold-"+method)))
}

// Answer is what the CPI prints in place of its own answer; "" is its own again.
func (d *Daemon) Answer(t testing.TB, method, text string) {
	t.Helper()
	file := filepath.Join(d.dir, "answer-"+method)
	if text == "" {
		must(t, os.RemoveAll(file))
		return
	}
	must(t, os.WriteFile(file, []byte(text), 0o600))
}

// Calls are the requests of a method that the CPI got.
func (d *Daemon) Calls(t testing.TB, method string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(d.dir, "requests-"+method))
	if !os.IsNotExist(err) {
		must(t, err)
	}
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

// AwaitCall waits until the CPI got so many requests of a method.
func (d *Daemon) AwaitCall(t testing.TB, method string, number int) {
	t.Helper()
	Eventually(t, fmt.Sprintf("the CPI gets request %d of %s", number, method), func() bool {
		return len(d.Calls(t, method)) >= number
	})
}

// Eventually fails the test unless the condition comes true.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("this does not happen: %s", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
