package natsapi

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Config says where the bus is and who connects.
type Config struct {
	URLs          []string
	CA, Cert, Key string // files in PEM; no TLS of its own where empty
	Subject       string // "agent.<agent_id>"
	Prefix        string // of the daemon's methods
	AgentID       string
}

const (
	// reconnectWait is the pause between two attempts to reach the bus.
	reconnectWait = 2 * time.Second
	// flushWait bounds the wait for the last answers to leave.
	flushWait = time.Second
)

// Connect opens the connection, which is tried for ever and again after every
// loss: a bus that is away is no error. What is wrong with the files is.
func (c Config) Connect(name string, log *slog.Logger) (*nats.Conn, error) {
	options := []nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.IgnoreAuthErrorAbort(), // certificates are replaced while the daemon runs
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectBufSize(-1), // an answer nobody waits for any more is not kept
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			log.Warn("lost the bus", "error", err)
		}),
		nats.ReconnectHandler(func(conn *nats.Conn) {
			log.Info("on the bus again", "url", conn.ConnectedUrlRedacted())
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Error("the bus reports an error", "error", err)
		}),
	}
	if c.CA != "" {
		options = append(options, nats.RootCAs(c.CA))
	}
	if c.Cert != "" {
		options = append(options, nats.ClientCert(c.Cert, c.Key))
	}
	conn, err := nats.Connect(strings.Join(c.URLs, ","), options...)
	if err != nil {
		return nil, fmt.Errorf("cannot use the bus: %w", err)
	}
	return conn, nil
}
