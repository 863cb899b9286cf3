package apitest

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// DirectorUUID is the director's on the bus.
const DirectorUUID = "probe-uuid"

const password = "test"

// Bus is a NATS server in this process with a director's permissions: those of
// the director itself, and those that the certificate of AgentID's VM has.
type Bus struct {
	options server.Options
	server  *server.Server
}

// StartBus starts a bus on a free port.
func StartBus(t testing.TB, change ...func(*server.Options)) *Bus {
	t.Helper()
	b := NewBus(t, change...)
	b.Start(t)
	return b
}

// NewBus makes a bus that is not running, on a port that is free.
func NewBus(t testing.TB, change ...func(*server.Options)) *Bus {
	t.Helper()
	b := &Bus{options: server.Options{Host: "127.0.0.1", Port: freePort(t), Users: Users(password), NoSigs: true, NoLog: true}}
	for _, c := range change {
		c(&b.options)
	}
	t.Cleanup(b.Stop)
	return b
}

// lastPort is the last that freePort gave.
var lastPort atomic.Int64

// freePort is a port that no other bus of this program gets, since some are stopped and
// started again, and below those that the kernel gives to connections.
func freePort(t testing.TB) int {
	t.Helper()
	const first, number = 12000, 20000
	for range number {
		port := first + (os.Getpid()*101+int(lastPort.Add(1)))%number
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			must(t, l.Close())
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// Users are the director and the agent, with a password.
func Users(password string) []*server.User {
	return []*server.User{
		{Username: "director", Password: password, Permissions: rights(
			[]string{"agent.*", "hm.director.alert"},
			[]string{"director.>"})},
		{Username: "agent", Password: password, Permissions: rights(
			[]string{"hm.agent.heartbeat." + AgentID, "hm.agent.alert." + AgentID, "hm.agent.shutdown." + AgentID, "director.*." + AgentID + ".*"},
			[]string{"agent." + AgentID})},
	}
}

func rights(publish, subscribe []string) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publish},
		Subscribe: &server.SubjectPermission{Allow: subscribe},
	}
}

// Start starts the bus, on the same port as before.
func (b *Bus) Start(t testing.TB) {
	t.Helper()
	options := b.options
	var err error
	b.server, err = server.NewServer(&options)
	must(t, err)
	b.server.Start()
	if !b.server.ReadyForConnections(patience) {
		t.Fatal("the bus does not start")
	}
}

// Stop stops the bus if it runs.
func (b *Bus) Stop() {
	if b.server == nil {
		return
	}
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

// SetUsers changes who may connect from the next start on.
func (b *Bus) SetUsers(users []*server.User) { b.options.Users = users }

// URL is where a user finds the bus.
func (b *Bus) URL(user string) string {
	return fmt.Sprintf("nats://%s:%s@127.0.0.1:%d", user, password, b.options.Port)
}
