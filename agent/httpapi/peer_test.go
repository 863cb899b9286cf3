package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/httpapi"
)

// callerEnv makes the test binary a caller: of the methods that it is given, on the
// socket that this names.
const callerEnv = "HTTPAPI_TEST_CALLER"

func TestMain(m *testing.M) {
	if socket := os.Getenv(callerEnv); socket != "" {
		for _, line := range os.Args[1:] {
			fmt.Println(call(socket, line))
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// call makes a call, which is a method and its arguments, in JSON or bare strings,
// and says what became of it.
func call(socket, line string) string {
	words := strings.Fields(line)
	arguments := []any{}
	for _, word := range words[1:] {
		if json.Valid([]byte(word)) {
			arguments = append(arguments, json.RawMessage(word))
		} else {
			arguments = append(arguments, word)
		}
	}
	_, err := httpapi.NewClient(socket).Call(context.Background(), words[0], arguments...)
	var x *api.Error
	switch {
	case err == nil:
		return "served"
	case errors.As(err, &x):
		return fmt.Sprint(x.Kind, " ", x.Message)
	}
	return err.Error()
}

const (
	nobody = 65534
	group  = 4321 // that the socket is for
)

func TestWhoIsServed(t *testing.T) {
	many := []uint32{}
	for gid := range uint32(100) { // more than the daemon first has room for
		many = append(many, 10000+gid)
	}
	for _, test := range []struct {
		name  string
		cred  syscall.Credential
		world bool // somebody made the socket world-writable
		want  string
	}{
		{"root", syscall.Credential{}, false, "served"},
		{"a member by its own group", syscall.Credential{Uid: nobody, Gid: group}, false, "served"},
		{"a member by a supplementary group", syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{7, group}}, false, "served"},
		{"a member of many groups", syscall.Credential{Uid: nobody, Gid: nobody, Groups: append(many, group)}, false, "served"},
		{"somebody else", syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{7}}, false, "permission denied"},
		{"a member, where all can connect", syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{7, group}}, true, "served"},
		{"somebody else, where all can connect", syscall.Credential{Uid: nobody, Gid: nobody, Groups: many}, true, "forbidden uid 65534 (pid "},
	} {
		t.Run(test.name, func(t *testing.T) {
			socket := serve(t, apitest.Start(t), httpapi.Access{Group: group})
			if test.world {
				no(t, os.Chmod(socket, 0o666))
			}
			if got := callAs(t, socket, test.cred, "info")[0]; !strings.Contains(got, test.want) {
				t.Errorf("the caller is told %q, want %q", got, test.want)
			}
		})
	}
}

func TestWithoutAGroupRootAloneIsServed(t *testing.T) {
	socket := serve(t, apitest.Start(t), httpapi.Access{})
	member := syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{0}} // of root's own group
	if got := callAs(t, socket, member, "info")[0]; !strings.Contains(got, "forbidden uid 65534") {
		t.Errorf("a member of group 0 is told %q", got)
	}
	if got := callAs(t, socket, syscall.Credential{}, "info")[0]; got != "served" {
		t.Errorf("root is told %q", got)
	}
}

// serve serves a daemon for a group, at a path that everybody may reach.
func serve(t *testing.T, d *apitest.Daemon, a httpapi.Access) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "httpapi-")
	no(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	no(t, os.Chmod(dir, 0o755))
	socket = filepath.Join(dir, "s")
	l, err := httpapi.Listen(socket, a)
	no(t, err)
	apitest.Background(t, func(ctx context.Context) error {
		return httpapi.NewServer(d.Handler, a, slog.New(slog.DiscardHandler)).Serve(ctx, l)
	})
	return socket
}

// callAs makes calls from a process with other credentials, and returns what became
// of each.
func callAs(t *testing.T, socket string, cred syscall.Credential, calls ...string) []string {
	t.Helper()
	fd, err := unix.Open("/proc/self/exe", unix.O_PATH, 0) // its path may be closed to the other
	no(t, err)
	self := os.NewFile(uintptr(fd), "self")
	defer self.Close()
	cmd := exec.Command("/proc/self/fd/3", calls...)
	cmd.ExtraFiles = []*os.File{self}
	cmd.Env = []string{callerEnv + "=" + socket, "GORACE=atexit_sleep_ms=0"} // under -race a process lingers for a second
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &cred, Pdeathsig: unix.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the caller fails: %v: %s", err, stderr.Bytes())
	}
	results := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(results) != len(calls) {
		t.Fatalf("of %q the caller tells %q", calls, results)
	}
	return results
}
