package httpapi

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// peer is who is at the other end of a connection.
type peer struct {
	uid, pid int
	groups   []int
}

func (p peer) String() string { return fmt.Sprintf("uid %d (pid %d)", p.uid, p.pid) }

// peerKey is the context key of a connection's peer.
type peerKey struct{}

// withPeer asks the kernel once per connection.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	p, err := peerOf(c)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, p)
}

func peerOf(c net.Conn) (peer, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return peer{}, fmt.Errorf("cannot tell who is at the other end of a %T", c)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return peer{}, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil || credErr != nil {
		return peer{}, fmt.Errorf("cannot tell who is at the other end: %w", firstOf(err, credErr))
	}
	p := peer{uid: int(cred.Uid), pid: int(cred.Pid), groups: []int{int(cred.Gid)}}
	p.groups = append(p.groups, supplementary(p.pid)...)
	return p, nil
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// supplementary are the groups of the peer's process. The socket's mode has
// already kept out who is not in its group when the connection was made.
func supplementary(pid int) []int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		list, ok := strings.CutPrefix(line, "Groups:")
		if !ok {
			continue
		}
		var groups []int
		for _, field := range strings.Fields(list) {
			if gid, err := strconv.Atoi(field); err == nil {
				groups = append(groups, gid)
			}
		}
		return groups
	}
	return nil
}

// may says whether the peer is served: root, or a member of the group where one
// is configured (0 is none).
func (p peer) may(gid int) bool {
	return p.uid == 0 || gid != 0 && slices.Contains(p.groups, gid)
}
