package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/httpapi"
)

// ListenConfig says where the daemon listens.
type ListenConfig struct {
	Socket    string    `yaml:"socket"`
	Group     string    `yaml:"group"`      // whose members may use the socket beside root
	Holders   string    `yaml:"holders"`    // the user who may use it for holds alone
	TCP       TCPConfig `yaml:"tcp"`        // the API for others than this machine
	Metrics   string    `yaml:"metrics"`    // host:port, "" for none
	WebConfig string    `yaml:"web_config"` // exporter-toolkit's file for TLS and authentication
}

// TCPConfig says where the API is served over TCP, and to whom.
type TCPConfig struct {
	Address string   `yaml:"address"` // host:port, "" for none
	Cert    string   `yaml:"cert"`
	Key     string   `yaml:"key"`
	CA      string   `yaml:"ca"`    // of clients
	Names   []string `yaml:"names"` // of clients: CN or alternative name
}

func (l ListenConfig) check(d *document) {
	if err := httpapi.CheckSocketPath(l.Socket); err != nil {
		d.fail("listen.socket", "%v", err)
	}
	if _, err := httpapi.GroupID(l.Group); err != nil {
		d.fail("listen.group", "%v", err)
	}
	if _, err := httpapi.UserID(l.Holders); err != nil {
		d.fail("listen.holders", "%v", err)
	}
	d.address("listen.metrics", l.Metrics)
	l.TCP.check(d)
}

func (c TCPConfig) check(d *document) {
	if c.Address == "" {
		if c.Cert+c.Key+c.CA != "" || len(c.Names) > 0 {
			d.fail("listen.tcp.address", "needed with the other keys of listen.tcp")
		}
		return
	}
	d.address("listen.tcp.address", c.Address)
	d.absolute("listen.tcp.cert", c.Cert)
	d.absolute("listen.tcp.key", c.Key)
	d.absolute("listen.tcp.ca", c.CA)
	if len(c.Names) == 0 {
		d.fail("listen.tcp.names", "needs a name, that of a client's certificate")
	}
	for i, name := range c.Names {
		if name == "" {
			d.fail(fmt.Sprintf("listen.tcp.names[%d]", i), "is empty")
		}
	}
}

// address notes an error about a host:port unless it can be listened on; "" is none.
func (d *document) address(key, address string) {
	if address == "" {
		return
	}
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.DefaultResolver.LookupPort(context.Background(), "tcp", port)
	}
	if err != nil {
		d.fail(key, "%v", err)
	}
}

// access is who may use the socket.
func (l ListenConfig) access() (httpapi.Access, error) {
	group, err := httpapi.GroupID(l.Group)
	if err != nil {
		return httpapi.Access{}, err
	}
	holder, err := httpapi.UserID(l.Holders)
	return httpapi.Access{Group: group, Holder: holder}, err
}

func (c TCPConfig) files() httpapi.Files { return httpapi.Files{Cert: c.Cert, Key: c.Key, CA: c.CA} }

// checkFiles says whether the certificates can be used, where there are to be any.
func (c TCPConfig) checkFiles() error {
	if c.Address == "" {
		return nil
	}
	if err := c.files().Check(); err != nil {
		return fmt.Errorf("listen.tcp: %w", err)
	}
	return nil
}

// task binds the address, and serves on it.
func (c TCPConfig) task(ctx context.Context, h *api.Handler, log *slog.Logger) (task, error) {
	l, err := httpapi.ListenTCP(ctx, c.Address, c.files())
	if err != nil {
		return task{}, fmt.Errorf("listen.tcp: %w", err)
	}
	server := httpapi.NewTCPServer(h, c.Names, log)
	return task{"TCP", func(ctx context.Context) error { return server.Serve(ctx, l) }}, nil
}
