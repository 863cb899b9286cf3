package front_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/wire"
	"github.com/quiesced/quiesced/cpi/front"
)

// answers is a script that prints the good answer.
const answers = `printf '%s\n' '{"result":"snap-1","error":null,"log":""}'`

// told is what a daemon was told by its resumes.
func told(t *testing.T, d *daemon) (all []wire.HoldEnd) {
	t.Helper()
	for _, text := range d.called("resume") {
		var arguments []json.RawMessage
		var end wire.HoldEnd
		if json.Unmarshal([]byte(text), &arguments) != nil || json.Unmarshal(arguments[1], &end) != nil {
			t.Fatalf("resume was called with %s", text)
		}
		all = append(all, end)
	}
	return all
}

// lastTold is the outcome that a daemon was told.
func lastTold(t *testing.T, d *daemon) wire.HoldEnd {
	t.Helper()
	all := told(t, d)
	if len(all) == 0 {
		t.Fatal("the daemon was told no outcome")
	}
	return all[len(all)-1]
}

func TestASnapshotIsTakenWithTheVMAtRest(t *testing.T) {
	t.Parallel()
	s := newStand(t, "echo working >&2\n"+answers+"\nexit 3")
	s.daemon.answers["quiesce"] = func(_ int, arguments []json.RawMessage) (any, error) {
		if s.exists("request") {
			t.Error("the CPI was called before the VM was at rest")
		}
		return leaseOf(arguments)
	}
	s.daemon.answers["resume"] = func(_ int, arguments []json.RawMessage) (any, error) {
		same(t, "stdout before the VM was set going", "", s.out.String())
		return reportOf(arguments), nil
	}
	ending := s.take(t, asked)
	if ending.PassOn || ending.Status.ExitStatus() != 3 {
		t.Errorf("the ending is %+v", ending)
	}
	same(t, "the CPI's request", asked, s.read(t, "request"))
	same(t, "stdout", good, s.out.String())
	contains(t, "stderr", s.log.String(), "working\nquiesce-cpi: snapshot \"snap-1\" of disk \"disk-1\" of dep/db (agent a-1), run ", ": at rest (freeze)\n")
	// It is told at once: after one without an outcome the VM would not wait for the
	// director's next call.
	if diff := cmp.Diff([]wire.HoldEnd{{Snapshots: map[string]string{"disk-1": "snap-1"}}}, told(t, s.daemon)); diff != "" {
		t.Errorf("the outcome told: -want +got\n%s", diff)
	}
	if len(s.alerts) > 0 {
		t.Errorf("alerts: %+v", s.alerts)
	}
	var request []wire.Request
	if err := json.Unmarshal([]byte(s.daemon.called("quiesce")[0]), &request); err != nil {
		t.Fatal(err)
	}
	want := wire.Request{ID: request[0].ID, Level: "freeze", Disks: []string{"disk-1"}, Lease: 0.9, Wait: true}
	if diff := cmp.Diff(want, request[0]); diff != "" || request[0].ID == "" {
		t.Errorf("the hold asked for: -want +got\n%s", diff)
	}
}

func TestWhatHasNothingToBringToRestIsPassedOn(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, document string
		calls          int
	}{
		{"an instance without a VM", strings.Replace(asked, `"agent_id":"a-1"`, `"agent_id":null`, 1), 0},
		{"a disk that is not attached", asked, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStand(t, answers)
			s.daemon.answers["quiesce"] = func(int, []json.RawMessage) (any, error) {
				return nil, &api.Error{Kind: api.KindNotAttached, Message: "no such disk"}
			}
			if ending := s.take(t, tt.document); !ending.PassOn {
				t.Errorf("the ending is %+v", ending)
			}
			if n := len(s.daemon.called("quiesce")); n != tt.calls {
				t.Errorf("%d holds were asked for", n)
			}
			if s.out.String()+s.log.String() != "" || len(s.alerts) > 0 || s.exists("request") {
				t.Errorf("stdout %q, stderr %q, alerts %v", s.out, s.log, s.alerts)
			}
		})
	}
}

// failures are the ways in which a VM is not brought to rest.
var failures = map[string]struct {
	prepare func(*stand)
	says    string
}{
	"nobody can be reached": {func(s *stand) { s.unreachable = &api.Error{Kind: api.KindUnreachable, Message: "no bus"} }, "no bus"},
	"nobody answers": {func(s *stand) {
		s.daemon.answers["info"] = func(int, []json.RawMessage) (any, error) {
			return nil, &api.Error{Kind: api.KindUnreachable, Message: "no daemon answers"}
		}
	}, "no daemon answers"},
	"the daemon refuses": {func(s *stand) {
		s.daemon.answers["quiesce"] = func(int, []json.RawMessage) (any, error) {
			return nil, &api.Error{Kind: api.KindRefused, Message: "a disk is migrated"}
		}
	}, "a disk is migrated"},
	"the daemon knows no holds": {func(s *stand) {
		s.daemon.answers["quiesce"] = func(int, []json.RawMessage) (any, error) {
			return nil, &api.Error{Kind: api.KindUnknownMethod, Message: "unknown message quiesce"}
		}
	}, "unknown message quiesce"},
	"it is not at rest in time": {func(s *stand) {
		s.Config.QuiesceTimeout = 300 * time.Millisecond
		s.daemon.answers["quiesce"] = func(_ int, a []json.RawMessage) (any, error) { return running(a) }
		s.daemon.answers["get_task"] = func(_ int, a []json.RawMessage) (any, error) {
			var id string
			err := json.Unmarshal(a[0], &id)
			return api.Task{ID: id, State: "running"}, err
		}
	}, "not at rest within 300ms"},
	"what was begun did not end well": {func(s *stand) {
		s.daemon.answers["quiesce"] = func(int, []json.RawMessage) (any, error) {
			return nil, &api.Error{Kind: api.KindNotResumed, Message: "a service does not start"}
		}
	}, "a service does not start"},
}

// running is the task that a hold is until it is at rest.
func running(arguments []json.RawMessage) (any, error) {
	var r wire.Request
	err := json.Unmarshal(arguments[0], &r)
	return api.Task{ID: r.ID, State: "running"}, err
}

func TestThePolicySaysWhatIsDoneWithoutRest(t *testing.T) {
	t.Parallel()
	answer := map[front.Policy]string{
		front.Degrade: "",
		front.Skip:    `{"result":null,"error":{"type":"Bosh::Clouds::NotImplemented","message":"quiesce-cpi: cannot bring`,
		front.Fail:    `{"result":null,"error":{"type":"Bosh::Clouds::CloudError","message":"quiesce-cpi: cannot bring`,
	}
	for name, failure := range failures {
		for policy, want := range answer {
			t.Run(name+", "+string(policy), func(t *testing.T) {
				t.Parallel()
				s := newStand(t, answers)
				s.Config.Policy = policy
				failure.prepare(s)
				ending := s.take(t, asked)
				if ending.PassOn != (policy == front.Degrade) || ending.Status != 0 {
					t.Errorf("the ending is %+v", ending)
				}
				if !strings.HasPrefix(s.out.String(), want) || want == "" && s.out.String() != "" {
					t.Errorf("the answer is %s", s.out)
				}
				if want != "" && !strings.HasSuffix(s.out.String(), `,"ok_to_retry":false},"log":""}`) {
					t.Errorf("the answer is %s", s.out)
				}
				contains(t, "stderr", s.log.String(), `cannot bring dep/db (agent a-1) to rest for the snapshot of disk "disk-1": `, failure.says, "policy "+string(policy))
				if s.exists("request") {
					t.Error("the CPI was called")
				}
				mustAlert(t, s, failure.says)
			})
		}
	}
}

// mustAlert asserts that the operator was told once.
func mustAlert(t *testing.T, s *stand, says string) {
	t.Helper()
	if len(s.alerts) != 1 {
		t.Fatalf("alerts: %+v", s.alerts)
	}
	var message struct {
		ID, Title, Summary, Source string
		Severity                   int
		CreatedAt                  int64 `json:"created_at"`
	}
	if err := json.Unmarshal(s.alerts[0].Message(), &message); err != nil {
		t.Fatal(err)
	}
	contains(t, "the summary", message.Summary, says, "disk-1")
	want := 3
	if strings.Contains(says, "does not start") { // something is still held up
		want = 1
	}
	if message.ID == "" || message.Title == "" || message.Source != "quiesce-cpi" || message.Severity != want || message.CreatedAt < 1e9 {
		t.Errorf("the alert is %+v", message)
	}
}

func TestAHoldThatIsTooSlowIsCancelled(t *testing.T) {
	t.Parallel()
	s := newStand(t, answers)
	failures["it is not at rest in time"].prepare(s)
	s.take(t, asked)
	if n := len(s.daemon.called("cancel_task")); n != 1 {
		t.Errorf("%d cancellations", n)
	}
}

func TestASignalBeforeTheCPIRunsEndsTheHold(t *testing.T) {
	t.Parallel()
	s := newStand(t, answers)
	ctx, cancel := context.WithCancel(t.Context())
	s.daemon.answers["quiesce"] = func(_ int, a []json.RawMessage) (any, error) { return running(a) }
	s.daemon.answers["get_task"] = func(int, []json.RawMessage) (any, error) {
		cancel()
		return nil, &api.Error{Kind: api.KindUnreachable}
	}
	if ending := s.takeIn(ctx, t, asked); ending.PassOn || ending.Status.Signal() != syscall.SIGTERM {
		t.Errorf("the ending is %+v", ending)
	}
	if n := len(s.daemon.called("cancel_task")); n != 1 || s.exists("request") || s.out.String() != "" {
		t.Errorf("%d cancellations, stdout %q", n, s.out)
	}
}

func TestASignalEndsTheCPIThatRuns(t *testing.T) {
	t.Parallel()
	s := newStand(t, "touch $D/begun\nexec sleep 1000")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for !s.exists("begun") {
			time.Sleep(5 * time.Millisecond)
		}
		cancel()
	}()
	if ending := s.takeIn(ctx, t, asked); ending.PassOn || ending.Status.Signal() != syscall.SIGTERM {
		t.Errorf("the ending is %+v", ending)
	}
	contains(t, "the outcome", lastTold(t, s.daemon).Error, "gave no answer")
	contains(t, "stderr", s.log.String(), "no snapshot of disk")
}

func TestTheCPIIsRunAsADirectorRunsIt(t *testing.T) {
	t.Setenv("HOME", "/nowhere")
	s := newStand(t, `( # in a process of its own, for a shell moves its descriptors about
cp /proc/$$/environ $D/environment
cp /proc/$$/cmdline $D/arguments
grep -h flags /proc/$$/fdinfo/1 /proc/$$/fdinfo/2 >$D/flags
for fd in /proc/$$/fd/*; do readlink $fd; done | grep ^pipe: >$D/pipes
cut -d' ' -f5 /proc/$$/stat >$D/group
)
`+answers)
	s.take(t, asked)
	same(t, "arguments", "/bin/sh\x00"+s.CPI+"\x00", s.read(t, "arguments"))
	same(t, "environment", strings.Join(os.Environ(), "\x00")+"\x00", s.read(t, "environment"))
	same(t, "flags of stdout and stderr", "flags:\t01\nflags:\t01\n", s.read(t, "flags"))
	own := strings.Join(links(t), "\n") // what a test is run with
	var pipes []string
	for _, pipe := range strings.Fields(s.read(t, "pipes")) {
		if !strings.Contains(own, pipe) {
			pipes = append(pipes, pipe)
		}
	}
	if len(pipes) != 3 {
		t.Errorf("it has %d pipes: %q", len(pipes), pipes)
	}
	group, err := syscall.Getpgid(0)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "process group", fmt.Sprintln(group), s.read(t, "group"))
}

// links are what this process has open.
func links(t *testing.T) (all []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		link, _ := os.Readlink("/proc/self/fd/" + e.Name()) // the directory's own is closed
		all = append(all, link)
	}
	return all
}

func TestMetadataIsAddedWhereItIsAskedFor(t *testing.T) {
	t.Parallel()
	s := newStand(t, answers)
	s.Config.AddMetadata = true
	s.take(t, asked)
	var request []wire.Request
	if err := json.Unmarshal([]byte(s.daemon.called("quiesce")[0]), &request); err != nil {
		t.Fatal(err)
	}
	added := `,"quiesced_level":"freeze","quiesced_run":"` + request[0].ID + `"}],"context"`
	same(t, "the CPI's request", strings.Replace(asked, `}],"context"`, added, 1), s.read(t, "request"))
}

func TestACPIThatCannotBeRunIsSaidSo(t *testing.T) {
	t.Parallel()
	s := newStand(t, answers)
	s.CPI = "/nowhere/cpi"
	if ending := s.take(t, asked); ending.PassOn {
		t.Errorf("the ending is %+v", ending)
	}
	contains(t, "stdout", s.out.String(), "Bosh::Clouds::CpiError", "/nowhere/cpi", "no such file")
	if n := len(s.daemon.called("quiesce")); n != 0 {
		t.Errorf("%d holds", n)
	}
}

// What a CPI needs to load is no part of the pause.
func TestTheCPIIsLoadedBeforeTheVMIsBroughtToRest(t *testing.T) {
	t.Parallel()
	s := newStand(t, answers)
	if err := os.WriteFile(filepath.Join(s.dir, "before"), []byte("echo loading >&2\nsleep 0.5\ntouch $D/loaded\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.daemon.answers["quiesce"] = func(_ int, arguments []json.RawMessage) (any, error) {
		if !s.exists("loaded") || s.exists("request") || s.log.String() != "" {
			t.Errorf("loaded: %v, called: %v, stderr: %q", s.exists("loaded"), s.exists("request"), s.log)
		}
		return leaseOf(arguments)
	}
	s.take(t, asked)
	same(t, "stdout", good, s.out.String())
	contains(t, "stderr", s.log.String(), "loading\nquiesce-cpi: snapshot")
}

// A CPI that was loaded for nothing leaves no trace, be it deaf.
func TestACPIThatIsNotCalledLeavesNoTrace(t *testing.T) {
	t.Parallel()
	s := newStand(t, answers)
	if err := os.WriteFile(filepath.Join(s.dir, "before"), []byte("echo loading >&2\necho $$ >$D/pid\nread line\nexec sleep 1000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.daemon.answers["quiesce"] = func(int, []json.RawMessage) (any, error) {
		return nil, &api.Error{Kind: api.KindNotAttached, Message: "no such disk"}
	}
	if ending := s.take(t, asked); !ending.PassOn {
		t.Errorf("the ending is %+v", ending)
	}
	same(t, "stdout and stderr", "", s.out.String()+s.log.String())
	if _, err := os.Stat("/proc/" + strings.TrimSpace(s.read(t, "pid"))); !os.IsNotExist(err) {
		t.Errorf("the CPI is left: %v", err)
	}
}

// Nor is what it left behind waited for, which has its pipes.
func TestACPIThatIsNotCalledAndLeavesAChildHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	s := newStand(t, answers)
	if err := os.WriteFile(filepath.Join(s.dir, "before"), []byte("sleep 1000 &\necho $! >$D/left\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if pid, err := strconv.Atoi(strings.TrimSpace(s.read(t, "left"))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	s.daemon.answers["quiesce"] = func(int, []json.RawMessage) (any, error) {
		return nil, &api.Error{Kind: api.KindNotAttached, Message: "no such disk"}
	}
	if ending := s.take(t, asked); !ending.PassOn {
		t.Errorf("the ending is %+v", ending)
	}
}
