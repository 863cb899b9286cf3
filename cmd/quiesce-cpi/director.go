package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/nats-io/nats.go"
	"go.yaml.in/yaml/v3"

	"github.com/quiesced/quiesced/agent/httpapi"
	"github.com/quiesced/quiesced/agent/natsapi"
	"github.com/quiesced/quiesced/cpi/front"
)

// prefix is of the daemon's methods, which share a subject with bosh-agent's.
const prefix = "quiesced_"

// director is who we stand in for: on its bus, and on its own VM.
type director struct {
	config string // its configuration file
	socket string // of its own VM's daemon
}

// bus is what the director's configuration says about its bus.
type bus struct {
	Mbus string `yaml:"mbus"`
	NATS struct {
		CA   string `yaml:"server_ca_path"`
		Cert string `yaml:"client_certificate_path"`
		Key  string `yaml:"client_private_key_path"`
	} `yaml:"nats"`
}

// connect joins the bus as the director.
func (d director) connect(ctx context.Context, config natsapi.Config) (*nats.Conn, error) {
	text, err := os.ReadFile(d.config)
	if err != nil {
		return nil, fmt.Errorf("cannot read the director's configuration: %w", err)
	}
	var b bus
	if err := yaml.Unmarshal(text, &b); err != nil || b.Mbus == "" {
		// The error may quote a secret.
		return nil, fmt.Errorf("cannot use the director's configuration %s: it says no mbus", d.config)
	}
	config.URLs = []string{b.Mbus}
	config.CA, config.Cert, config.Key = b.NATS.CA, b.NATS.Cert, b.NATS.Key
	return config.Dial(ctx, "quiesce-cpi")
}

// dial opens a way to the daemon of a snapshot's VM.
func (d director) dial(ctx context.Context, s front.Snapshot) (front.Link, error) {
	if s.AgentID == front.Self {
		return socketLink{httpapi.NewClient(d.socket)}, nil
	}
	for _, token := range []string{s.AgentID, s.DirectorUUID} {
		if token == "" || strings.ContainsAny(token, ".*> \t\r\n") {
			return nil, fmt.Errorf("cannot name a subject of the bus with %q", token)
		}
	}
	config := natsapi.Config{Subject: "agent." + s.AgentID, Prefix: prefix, AgentID: s.AgentID}
	conn, err := d.connect(ctx, config)
	if err != nil {
		return nil, err
	}
	return busLink{natsapi.NewClient(conn, config, s.DirectorUUID), conn}, nil
}

// socketLink is the way to a daemon on this machine.
type socketLink struct{ *httpapi.Client }

// Close implements front.Link. What is idle is closed by the end of the program.
func (socketLink) Close() {}

// busLink is the way to a daemon over a connection of its own.
type busLink struct {
	*natsapi.Client
	conn *nats.Conn
}

// Close implements front.Link.
func (l busLink) Close() { l.conn.Close() }

// alert sends an alert to the health monitor, and returns when the bus has it.
func (d director) alert(ctx context.Context, a front.Alert) error {
	conn, err := d.connect(ctx, natsapi.Config{})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Publish(front.AlertSubject, a.Message()); err != nil {
		return fmt.Errorf("cannot publish to %s: %w", front.AlertSubject, err)
	}
	return conn.FlushWithContext(ctx)
}
