package apitest

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/httpapi"
	"github.com/quiesced/quiesced/agent/natsapi"
)

// OnSocket serves the daemon on a unix socket until the test ends.
func (d *Daemon) OnSocket(t testing.TB) *httpapi.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "quiesced.sock")
	l, err := httpapi.Listen(path, httpapi.Access{})
	must(t, err)
	Background(t, func(ctx context.Context) error {
		return httpapi.NewServer(d.Handler, httpapi.Access{}, slog.New(slog.DiscardHandler)).Serve(ctx, l)
	})
	return httpapi.NewClient(path)
}

// OnBus serves the daemon on a bus until the test ends.
func (d *Daemon) OnBus(t testing.TB, b *Bus) *natsapi.Client {
	t.Helper()
	Background(t, natsapi.NewServer(d.Handler, BusConfig(b), nil, slog.New(slog.DiscardHandler)).Serve)
	client := natsapi.NewClient(Connect(t, b, "director"), BusConfig(b), DirectorUUID)
	AwaitAnswer(t, client)
	return client
}

// OnDirectorBus serves the daemon on a director's bus until the test ends, with the
// certificate of its VM.
func (d *Daemon) OnDirectorBus(t testing.TB, b *DirectorBus) *natsapi.Client {
	t.Helper()
	config := b.Config(t, b.Authority.Issue(t, AgentCN))
	Background(t, natsapi.NewServer(d.Handler, config, nil, slog.New(slog.DiscardHandler)).Serve)
	client := b.Client(t)
	AwaitAnswer(t, client)
	return client
}

// Client calls AgentID's daemon as the director does.
func (b *DirectorBus) Client(t testing.TB) *natsapi.Client {
	t.Helper()
	return natsapi.NewClient(b.Connect(t, DirectorCN), b.Config(t, Pair{}), DirectorUUID)
}

// BusConfig is the daemon's.
func BusConfig(b *Bus) natsapi.Config {
	return natsapi.Config{
		URLs: []string{b.URL("agent")}, Subject: "agent." + AgentID, Prefix: "quiesced_", AgentID: AgentID,
	}
}

// Connect joins the bus as a user until the test ends.
func Connect(t testing.TB, b *Bus, user string) *nats.Conn {
	t.Helper()
	conn, err := nats.Connect(b.URL(user), nats.MaxReconnects(-1))
	must(t, err)
	t.Cleanup(conn.Close)
	return conn
}

// AwaitAnswer waits until the daemon answers.
func AwaitAnswer(t testing.TB, c api.Caller) {
	t.Helper()
	Eventually(t, "the daemon answers", func() bool {
		_, err := c.Call(t.Context(), "info")
		return err == nil
	})
}

// Background runs a part of a daemon until the test ends, and fails the test if
// it does not end then or ends with an error. The function that it returns ends
// it before.
func Background(t testing.TB, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = func() {
		t.Helper()
		cancel()
		if err, first := <-ended; first {
			must(t, err)
			close(ended)
		}
	}
	t.Cleanup(stop)
	return stop
}
