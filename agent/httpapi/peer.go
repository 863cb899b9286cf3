package httpapi

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/agent/api"
)

// peer is who is at the other end of a connection.
type peer struct {
	uid    uint32
	pid    int32
	groups []uint32 // its own group among them
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
	var p peer
	var askErr error
	err = raw.Control(func(fd uintptr) { p, askErr = ask(fd) })
	if err := cmp.Or(err, askErr); err != nil {
		return peer{}, fmt.Errorf("cannot tell who is at the other end: %w", err)
	}
	return p, nil
}

// ask asks the kernel who connected the socket.
func ask(fd uintptr) (peer, error) {
	cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return peer{}, err
	}
	groups, err := supplementary(fd)
	if err != nil {
		return peer{}, err
	}
	return peer{uid: cred.Uid, pid: cred.Pid, groups: append(groups, cred.Gid)}, nil
}

// supplementary are the other groups that the peer had when it connected. What
// its process became since (another program, another process under its id)
// plays no part, as it would in /proc. x/sys has no call of its own for it.
func supplementary(fd uintptr) ([]uint32, error) {
	groups := make([]uint32, 32)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno != unix.ERANGE || int(size/4) <= len(groups):
			return nil, errno
		}
		groups = make([]uint32, size/4)
	}
}

// Access says who may use the socket beside root.
type Access struct {
	Group  int // whose members may do everything; 0 for none
	Holder int // the user who may use holds alone; 0 for none
}

// role is what the peer may do. A member of the group stays one if he is the holder,
// too.
func (a Access) role(p peer) api.Role {
	switch {
	case p.uid == 0, a.Group != 0 && slices.Contains(p.groups, uint32(a.Group)):
		return api.RoleOperator
	case a.Holder != 0 && p.uid == uint32(a.Holder):
		return api.RoleHolder
	}
	return api.RoleNone
}

// who is the caller of a request that came over the socket.
func (a Access) who(r *http.Request) caller {
	p, ok := r.Context().Value(peerKey{}).(peer)
	if !ok {
		return caller{by: "somebody of whom the kernel does not say who it is"}
	}
	return caller{by: p.String(), role: a.role(p)}
}
