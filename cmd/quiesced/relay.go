package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/agent/natsapi"
	"github.com/quiesced/quiesced/quiesce/netclass"
)

// passFirewall lets the process reach monit and the bus where a firewall lets only
// some. It comes before the first socket, which has the group of its process then. A
// process is in one group: where monit and the bus have one each, the bus is reached
// through a relay, whose dialer this is; else nil.
func (c *Config) passFirewall(log *slog.Logger) natsapi.Dialer {
	group := netclass.Bus
	if c.Processes.Supervisor == "monit" {
		group = netclass.Monit
	}
	joined, err := netclass.Join(group)
	if err != nil {
		log.Warn("monit or the bus may be out of reach", "error", err)
	}
	log.Debug("looked for the firewall's group", "group", group, "joined", joined)
	if !joined || group == netclass.Bus {
		return nil
	}
	apart, err := netclass.Exists(netclass.Bus)
	if err != nil {
		log.Warn("the bus may be out of reach", "error", err)
	}
	if !apart {
		return nil
	}
	return relayed
}

// relayPatience is how long a relay tries to connect.
const relayPatience = 5 * time.Second

// relayVerb is what the daemon runs of itself to reach an address as a member of the
// bus's group: it says in a line whether it is there, then hands bytes on.
func relayVerb(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:    "relay ADDRESS",
		Short:  "Connect standard input and output to an address, as the firewall allows",
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := reach(cmd.Context(), args[0])
			if err != nil {
				g.printf("%s\n", strings.ReplaceAll(err.Error(), "\n", " "))
				return err
			}
			g.printf("\n")
			return relay(conn, g.in, g.out)
		},
	}
}

func reach(ctx context.Context, address string) (net.Conn, error) {
	if _, err := netclass.Join(netclass.Bus); err != nil {
		return nil, err
	}
	return (&net.Dialer{Timeout: relayPatience}).DialContext(ctx, "tcp", address)
}

// relay hands bytes on until either side ends. The process ends with it, and whatever
// still waits.
func relay(conn net.Conn, in io.Reader, out io.Writer) error {
	ended := make(chan error, 2)
	go func() { _, err := io.Copy(conn, in); ended <- err }()
	go func() { _, err := io.Copy(out, conn); ended <- err }()
	return errors.Join(<-ended, conn.Close())
}

// relayed is a connection to an address through a relay.
func relayed(ctx context.Context, _, address string) (net.Conn, error) {
	ours, its, err := socketpair()
	if err != nil {
		return nil, fmt.Errorf("cannot make a relay: %w", err)
	}
	// Through this link the program is found when its file has been removed.
	child := exec.Command("/proc/self/exe", "relay", address)
	child.Stdin, child.Stdout = its, its
	err = child.Start()
	_ = its.Close()
	if err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("cannot start a relay: %w", err)
	}
	c := &relayConn{Conn: ours, child: child}
	if err := c.established(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// socketpair is a pair of sockets: a connection, and a child's standard input and output.
func socketpair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	mine, its := os.NewFile(uintptr(fds[0]), "relay"), os.NewFile(uintptr(fds[1]), "relay")
	defer func() { _ = mine.Close() }()
	conn, err := net.FileConn(mine) // of a duplicate
	if err != nil {
		_ = its.Close()
		return nil, nil, err
	}
	return conn, its, nil
}

// relayConn is a connection through a child.
type relayConn struct {
	net.Conn
	child  *exec.Cmd
	closed sync.Once
}

// established reads the line that the relay begins with, and not a byte more.
func (c *relayConn) established(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	line, err := bufio.NewReaderSize(oneByte{c.Conn}, 16).ReadString('\n')
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("cannot hear of the relay: %w", err)
	}
	if line != "\n" {
		return fmt.Errorf("the relay in the firewall's group: %s", strings.TrimSpace(line))
	}
	return nil
}

// oneByte reads byte by byte.
type oneByte struct{ io.Reader }

func (o oneByte) Read(b []byte) (int, error) { return o.Reader.Read(b[:min(len(b), 1)]) }

// Close ends the relay, which ends by itself when it has handed on what it read.
func (c *relayConn) Close() (err error) {
	c.closed.Do(func() {
		err = c.Conn.Close()
		kill := time.AfterFunc(time.Second, func() { _ = c.child.Process.Kill() })
		defer kill.Stop()
		_ = c.child.Wait()
	})
	return err
}
