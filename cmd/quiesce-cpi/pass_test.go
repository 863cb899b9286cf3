package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// outcome is all that a director can see of a CPI.
type outcome struct {
	Stdout, Stderr string
	Status         syscall.WaitStatus
}

// callAsWorker runs a program with a request, as a director's worker.
func callAsWorker(t *testing.T, request string, args ...string) outcome {
	t.Helper()
	cmd := asWorker(exec.Command(args[0], args[1:]...))
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(request), &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcome{out.String(), errs.String(), cmd.ProcessState.Sys().(syscall.WaitStatus)}
}

// publicDir is a directory that a worker may look into.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "quiesce-cpi-pass-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Every other method is the real CPI's, to the last byte. Nothing that is configured is
// looked at: there is no configuration.
func TestOtherMethodsAreTheRealCPIsToTheLastByte(t *testing.T) {
	t.Parallel()
	quiesceCPI := filepath.Join(binaries, "quiesce-cpi")
	const tells = `cat
echo "arguments: $#, directory: $PWD, limit: $(ulimit -n), ignored: $(grep SigIgn /proc/$$/status), blocked: $(grep SigBlk /proc/$$/status)" >&2
tr '\0' '\n' </proc/$$/environ >&2
readlink /proc/$$/fd/1 | cut -c1-5 >&2
`
	big := `{"method":"create_vm","arguments":["` + strings.Repeat("0123456789abcdef", 1<<16) + `"]}`
	for _, tt := range []struct{ name, request, script string }{
		{"info", `{"method":"info","arguments":[],"context":{}}`, tells},
		{"create_vm with a mebibyte", big, tells},
		{"nothing", "", tells},
		{"a newline at the end", `{"method":"has_disk"}` + "\n\n", tells},
		{"no JSON", "\x00\xff\xfe{\"method\":\"snapshot_disk\"", tells},
		{"a request for a snapshot that is cut short", `{"method":"snapshot_disk","arguments":["disk-1",{"agent_id":"a"}`, tells},
		{"a snapshot of a disk without a VM", `{"method":"snapshot_disk","arguments":["disk-1",{"agent_id":null}],"context":{}}`, tells},
		{"a CPI that fails", `{"method":"info"}`, "cat >/dev/null; echo out; echo err >&2; exit 7"},
		{"a CPI that is killed", `{"method":"info"}`, "cat >/dev/null; echo out; kill -9 $$"},
		{"a CPI that crashes", `{"method":"info"}`, "cat >/dev/null; echo out; kill -SEGV $$"},
		{"a CPI that does not read", big, "echo out; exit 1"},
		{"a mebibyte on either output", `{"method":"info"}`, "yes out | head -c 1048576; yes err | head -c 1048576 >&2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bare := scriptAt(t, publicDir(t), tt.script)
			want := callAsWorker(t, tt.request, bare)
			got := callAsWorker(t, tt.request, quiesceCPI, "-config", "/nowhere", "-cpi", bare)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-bare +ours\n%.4000s", diff)
			}
		})
	}
}

func TestNothingIsBetweenADirectorAndTheRealCPI(t *testing.T) {
	t.Parallel()
	bare := scriptAt(t, publicDir(t), "echo $$; readlink /proc/$$/fd/0 /proc/$$/exe")
	cmd := asWorker(exec.Command(filepath.Join(binaries, "quiesce-cpi"), "-cpi", bare))
	cmd.Stdin = strings.NewReader(`{"method":"info"}`)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out), "\n")
	if lines[0] != fmt.Sprint(cmd.Process.Pid) || strings.Contains(lines[2], "quiesce-cpi") {
		t.Errorf("process %d became %q", cmd.Process.Pid, out)
	}
}

func TestACPIThatIsNotThereIsAnError(t *testing.T) {
	t.Parallel()
	got := callAsWorker(t, `{"method":"info"}`, filepath.Join(binaries, "quiesce-cpi"), "-cpi", "/nowhere/cpi")
	want := outcome{`{"result":null,"error":{"type":"Bosh::Clouds::CpiError","message":"quiesce-cpi: cannot run the CPI \"/nowhere/cpi\": no such file or directory","ok_to_retry":false},"log":""}`, "", 1 << 8}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	got = callAsWorker(t, `{"method":"info"}`, filepath.Join(binaries, "quiesce-cpi"))
	if got.Status.ExitStatus() != 2 || !strings.Contains(got.Stdout, "usage: quiesce-cpi -cpi PATH") {
		t.Errorf("without -cpi: %+v", got)
	}
}
