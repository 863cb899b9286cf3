package httpapi_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/agent/httpapi"
)

func TestSocketIsForRootItsGroupAndTheHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "quiesced.sock")
	l, err := httpapi.Listen(path, httpapi.Access{Group: 4321, Holder: 4322})
	no(t, err)
	info, err := os.Lstat(path)
	no(t, err)
	owner := info.Sys().(*syscall.Stat_t)
	if info.Mode() != os.ModeSocket|0o660 || owner.Uid != 4322 || owner.Gid != 4321 {
		t.Errorf("the socket is %s of %d:%d", info.Mode(), owner.Uid, owner.Gid)
	}
	no(t, l.Close())
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket stays: %v", err)
	}
}

func TestSocketIsRootsAloneBeforeItHasItsGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	config := net.ListenConfig{Control: httpapi.RootOnly}
	l, err := config.Listen(t.Context(), "unix", path)
	no(t, err)
	defer l.Close()
	info, err := os.Lstat(path)
	no(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("bind(2) makes the socket %s", info.Mode())
	}
}

func TestSocketOfADeadDaemonIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	no(t, err)
	dead.SetUnlinkOnClose(false)
	no(t, dead.Close())
	l, err := httpapi.Listen(path, httpapi.Access{})
	no(t, err)
	defer l.Close()
	c, err := net.Dial("unix", path)
	no(t, err)
	no(t, c.Close())
}

// A daemon that was killed while it started a process lives on in that one for a
// moment.
func TestSocketOfADyingDaemonIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dying, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	no(t, err)
	dying.SetUnlinkOnClose(false)
	closed := make(chan error, 1)
	time.AfterFunc(100*time.Millisecond, func() { closed <- dying.Close() })
	l, err := httpapi.Listen(path, httpapi.Access{})
	no(t, err)
	no(t, <-closed)
	no(t, l.Close())
}

func TestSocketOfALivingDaemonIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := httpapi.Listen(path, httpapi.Access{})
	no(t, err)
	defer first.Close()
	_, err = httpapi.Listen(path, httpapi.Access{})
	says(t, err, "another daemon listens there")
	c, err := net.Dial("unix", path)
	no(t, err)
	no(t, c.Close())
}

// A daemon that accepts nothing for a while is not dead: its backlog is full.
func TestSocketOfABusyDaemonIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	no(t, err)
	defer unix.Close(fd)
	no(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	no(t, unix.Listen(fd, 0))
	for range 2 {
		if c, err := net.Dial("unix", path); err == nil {
			defer c.Close()
		}
	}
	_, err = httpapi.Listen(path, httpapi.Access{})
	says(t, err, "another daemon listens there")
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the busy daemon has lost its socket: %v", err)
	}
}

func TestWhatIsNoSocketIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	file, link, folder := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "folder")
	no(t, os.WriteFile(file, []byte("mine"), 0o600))
	no(t, os.Symlink(file, link))
	no(t, os.Mkdir(folder, 0o700))
	for _, path := range []string{file, link, folder} {
		_, err := httpapi.Listen(path, httpapi.Access{})
		says(t, err, "it is there and is no socket")
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s is gone: %v", path, err)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "mine" {
		t.Errorf("the file holds %q, %v", text, err)
	}
}

func TestPathsOfSockets(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "s")
	no(t, err)
	defer os.RemoveAll(dir)
	of := func(bytes int) string { return filepath.Join(dir, strings.Repeat("x", bytes-len(dir)-1)) }

	l, err := httpapi.Listen(of(httpapi.MaxSocketPath), httpapi.Access{})
	no(t, err)
	c, err := net.Dial("unix", of(httpapi.MaxSocketPath))
	no(t, err)
	no(t, c.Close())
	no(t, l.Close())

	_, err = httpapi.Listen(of(httpapi.MaxSocketPath+1), httpapi.Access{})
	says(t, err, "has 108 bytes, and the kernel takes 107")
	_, err = httpapi.Listen("quiesced.sock", httpapi.Access{})
	says(t, err, `socket path "quiesced.sock" is not absolute`)
	_, err = httpapi.Listen("@quiesced", httpapi.Access{})
	says(t, err, "is not absolute")
	_, err = httpapi.Listen("/proc/quiesced/s", httpapi.Access{})
	says(t, err, "cannot make the socket's directory")
}

func TestGroupsAndUsersByNameAndNumber(t *testing.T) {
	for _, test := range []struct {
		name  string
		id    int
		fails bool
	}{
		{"", 0, false},
		{"root", 0, false},
		{"daemon", 1, false},
		{"4321", 4321, false},
		{"4294967294", 4294967294, false},
		{"4294967295", 0, true}, // chown(2)'s "leave it"
		{"4294967296", 0, true}, // root's in 32 bits
		{"-1", 0, true},
		{"nobody of that name", 0, true},
	} {
		gid, err := httpapi.GroupID(test.name)
		if gid != test.id || (err != nil) != test.fails {
			t.Errorf("group %q is %d, %v", test.name, gid, err)
		}
		uid, err := httpapi.UserID(test.name)
		if uid != test.id || (err != nil) != test.fails {
			t.Errorf("user %q is %d, %v", test.name, uid, err)
		}
	}
}

func no(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func says(t testing.TB, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("the error is %v, without %q", err, text)
	}
}
