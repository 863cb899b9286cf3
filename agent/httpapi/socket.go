package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxSocketPath is how long a socket's path may be: sun_path without its final
// zero.
const MaxSocketPath = 107

// CheckSocketPath says whether a path can be bound as a unix socket.
func CheckSocketPath(path string) error {
	switch {
	case !filepath.IsAbs(path):
		return fmt.Errorf("socket path %q is not absolute", path)
	case len(path) > MaxSocketPath:
		return fmt.Errorf("socket path %q has %d bytes, and the kernel takes %d", path, len(path), MaxSocketPath)
	}
	return nil
}

// Listen binds the socket with mode 0660, for root and those who have access. A
// socket that a dead daemon left is replaced; one that somebody answers on is an
// error.
//
// A holder comes with his uid and no groups, so the file is his. That keeps everybody
// else from connecting at all, as mode 0666 would not: each connection takes one of
// the daemon's descriptors. As its owner he can open or close the file to others, but
// not replace it, for its directory is root's; and who is served is decided by the
// kernel's word for each connection, not by the file's mode.
func Listen(path string, a Access) (net.Listener, error) {
	if err := CheckSocketPath(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // the group must reach the socket in it
		return nil, fmt.Errorf("cannot make the socket's directory: %w", err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: rootOnly}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %q: %w", path, err)
	}
	if err := errors.Join(os.Chown(path, a.Holder, a.Group), os.Chmod(path, 0o660)); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("cannot give %q to who may use it: %w", path, err)
	}
	return l, nil
}

// rootOnly gives a socket a mode before it is bound, which bind(2) takes for its
// file: nobody but root can connect before it is given to others.
func rootOnly(_, _ string, c syscall.RawConn) error {
	var err error
	if ctlErr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); ctlErr != nil {
		return ctlErr
	}
	return err
}

// stalePatience is how long a socket may answer that nobody owns any more: a
// process that a daemon was about to start when it was killed has its descriptors
// until it executes.
const stalePatience = 500 * time.Millisecond

// removeStale removes a socket that a dead daemon left.
func removeStale(path string) error {
	for until := time.Now().Add(stalePatience); ; time.Sleep(50 * time.Millisecond) {
		info, err := os.Lstat(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot look at %q: %w", path, err)
		}
		if info.Mode().Type() != os.ModeSocket {
			return fmt.Errorf("cannot listen on %q: it is there and is no socket", path)
		}
		if !answers(path) {
			return os.Remove(path)
		}
		if time.Now().After(until) {
			return fmt.Errorf("cannot listen on %q: another daemon listens there", path)
		}
	}
}

// answers says whether anybody listens on a socket, be it too busy to answer.
func answers(path string) bool {
	dialer := net.Dialer{Timeout: time.Second}
	c, err := dialer.DialContext(context.Background(), "unix", path)
	if err == nil {
		_ = c.Close()
	}
	return !errors.Is(err, unix.ECONNREFUSED) // EAGAIN is a daemon that is too busy
}

// noID is the number that chown(2) takes for leaving user or group as they are.
const noID = 1<<32 - 1

// GroupID is the number of a group given by name or number; root's for "".
func GroupID(group string) (int, error) {
	if id, ok := number(group); ok {
		return id, nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, fmt.Errorf("unknown group %q", group)
	}
	return strconv.Atoi(g.Gid)
}

// UserID is the number of a user given by name or number; root's for "".
func UserID(name string) (int, error) {
	if id, ok := number(name); ok {
		return id, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("unknown user %q", name)
	}
	return strconv.Atoi(u.Uid)
}

// number reads the number of a user or group; "" is 0.
func number(text string) (int, bool) {
	if text == "" {
		return 0, true
	}
	id, err := strconv.ParseUint(text, 10, 32)
	return int(id), err == nil && id != noID
}
