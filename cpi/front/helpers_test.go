package front_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/wire"
	"github.com/quiesced/quiesced/cpi/front"
)

const (
	patience = 20 * time.Second

	good = `{"result":"snap-1","error":null,"log":""}` + "\n"

	// asked is a director's request, with a tag that repeats a key.
	asked = `{"method":"snapshot_disk","arguments":["disk-1",{"deployment":"dep","job":"db","index":0,"director_name":"mini","director_uuid":"d-uuid","agent_id":"a-1","instance_id":"i-1","owner":"me","agent_id":"spoofed"}],"context":{"director_uuid":"d-uuid","request_id":"cpi-1","secret":"s3cr3t"},"api_version":2}`
)

// daemon is scripted: it answers as one that has the VM at rest, where a method has
// no answer of its own. The answers are called one at a time, with how often that
// method was called before.
type daemon struct {
	answers map[string]func(before int, arguments []json.RawMessage) (any, error)

	mu    sync.Mutex
	calls []string // "method arguments"
	links int
}

// Call implements api.Caller.
func (d *daemon) Call(ctx context.Context, method string, arguments ...any) (json.RawMessage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	text, err := json.Marshal(arguments)
	if err != nil {
		return nil, err
	}
	var list []json.RawMessage
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	before := d.countLocked(method)
	d.calls = append(d.calls, method+" "+string(text))
	value, err := d.answerTo(method, before, list)
	if err != nil {
		return nil, err
	}
	return json.Marshal(value)
}

func (d *daemon) answerTo(method string, before int, arguments []json.RawMessage) (any, error) {
	if own := d.answers[method]; own != nil {
		return own(before, arguments)
	}
	switch method {
	case "info":
		return api.Info{}, nil
	case "quiesce":
		return leaseOf(arguments)
	case "renew":
		return wire.Lease{Level: "freeze", Seconds: 1}, nil
	case "resume":
		return reportOf(arguments), nil
	}
	return "canceled", nil
}

// leaseOf is the lease of a hold that is at rest.
func leaseOf(arguments []json.RawMessage) (any, error) {
	var r wire.Request
	err := json.Unmarshal(arguments[0], &r)
	return wire.Lease{ID: r.ID, Level: r.Level, Seconds: r.Lease}, err
}

// reportOf is the report of a hold that went well.
func reportOf(arguments []json.RawMessage) wire.Report {
	var end wire.HoldEnd
	_ = json.Unmarshal(arguments[1], &end)
	yes := true
	r := wire.Report{Outcome: "done", Asked: "freeze", Reached: "freeze", Clean: true, Unbroken: &yes}
	for disk, cid := range end.Snapshots {
		r.Disks = append(r.Disks, wire.DiskResult{CID: disk, SnapshotCID: cid, Clean: true})
	}
	return r
}

func (d *daemon) countLocked(method string) (n int) {
	for _, call := range d.calls {
		if strings.HasPrefix(call, method+" ") {
			n++
		}
	}
	return n
}

// called are the arguments of a method's calls.
func (d *daemon) called(method string) (all []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, call := range d.calls {
		if arguments, ok := strings.CutPrefix(call, method+" "); ok {
			all = append(all, arguments)
		}
	}
	return all
}

// Close implements front.Link.
func (d *daemon) Close() {}

// output is a buffer that can be read while it is written to.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// runner is a CPI that runs the file "body" beside itself when it has its request, and
// "before" before it reads. It is written before any process
// is started: one that is just being started keeps a file open that is being written, and
// such a file cannot be run.
var runner string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	flag.Parse()
	dir, err := os.MkdirTemp("", "front-test-")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		runner = filepath.Join(dir, "runner")
		err = os.WriteFile(runner, []byte("#!/bin/sh\nD=${0%/*}\n. $D/before\nrequest=$(cat)\ncase $request in *}) ;; *) echo cut short >&2; exit 1;; esac\nprintf %s \"$request\" >$D/request\n. $D/body\n"), 0o700)
	}
	if err == nil {
		err = flag.Set("test.parallel", "8") // most of them wait
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return m.Run()
}

// stand is a front before a CPI that is a shell script, with a scripted daemon.
type stand struct {
	front.Front
	daemon      *daemon
	dir         string // of the script, where it is $D
	out, log    *output
	mu          sync.Mutex
	alerts      []front.Alert
	unreachable error // what dialing comes to, nil for the daemon
}

func newStand(t *testing.T, script string) *stand {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "cpi")
	err := os.WriteFile(filepath.Join(dir, "body"), []byte(script+"\n"), 0o600)
	empty := os.WriteFile(filepath.Join(dir, "before"), nil, 0o600)
	if err = errors.Join(err, empty, os.Symlink(runner, path)); err != nil {
		t.Fatal(err)
	}
	s := &stand{daemon: &daemon{answers: map[string]func(int, []json.RawMessage) (any, error){}}, dir: dir, out: &output{}, log: &output{}}
	s.Front = front.Front{
		CPI: path,
		Config: front.Config{
			Level: agent.LevelFreeze, Policy: front.Degrade,
			Lease: 900 * time.Millisecond, QuiesceTimeout: patience, NoDaemonTimeout: 500 * time.Millisecond,
		},
		Dial: s.dial, Alert: s.alert, Stdout: s.out, Stderr: s.log,
	}
	return s
}

func (s *stand) dial(context.Context, front.Snapshot) (front.Link, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.daemon.links++
	if s.unreachable != nil {
		return nil, s.unreachable
	}
	return s.daemon, nil
}

func (s *stand) alert(_ context.Context, a front.Alert) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.alerts = append(s.alerts, a)
	return nil
}

// take has the front answer a request, and fails the test if it takes too long.
func (s *stand) take(t *testing.T, document string) front.Ending {
	t.Helper()
	return s.takeIn(t.Context(), t, document)
}

func (s *stand) takeIn(ctx context.Context, t *testing.T, document string) front.Ending {
	t.Helper()
	snapshot, err := front.ParseSnapshot([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan front.Ending, 1)
	go func() { ended <- s.Snapshot(ctx, []byte(document), snapshot) }()
	select {
	case e := <-ended:
		return e
	case <-time.After(patience):
		t.Fatalf("it does not end; the daemon's calls: %q", s.daemon.calls)
		return front.Ending{}
	}
}

// signal makes a file that the script waits for with "await NAME".
func (s *stand) signal(t *testing.T, name string) {
	if err := os.WriteFile(filepath.Join(s.dir, name), nil, 0o600); err != nil {
		t.Error(err)
	}
}

// await is what a script waits with for a file.
const await = `await() { until [ -e "$D/$1" ] || [ ! -e "$D" ]; do sleep 0.02; done; }` + "\n"

func (s *stand) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (s *stand) exists(name string) bool {
	_, err := os.Stat(filepath.Join(s.dir, name))
	return err == nil
}

func same(t *testing.T, what, want, got string) {
	t.Helper()
	if want != got {
		t.Errorf("%s: want %q, got %q", what, want, got)
	}
}

func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s has no %q: %q", what, part, text)
		}
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("this does not happen: %s", what)
		}
	}
}
