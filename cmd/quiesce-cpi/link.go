package main

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/httpapi"
	"github.com/quiesced/quiesced/agent/natsapi"
)

// socketLink is the way to a daemon on this machine.
type socketLink struct{ *httpapi.Client }

// Close implements front.Link. What is idle is closed by the end of the program.
func (socketLink) Close() {}

// busLink is the way to a daemon over one connection to the bus. When that is lost
// an answer that was under way is lost with it.
type busLink struct {
	conn   *nats.Conn
	client *natsapi.Client
	lost   chan struct{} // closed when the connection was lost
	once   sync.Once
}

var errLost = &api.Error{Kind: api.KindUnreachable, Message: "the connection to the bus was lost"}

// Call implements api.Caller.
func (l *busLink) Call(ctx context.Context, method string, arguments ...any) (json.RawMessage, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-l.lost:
			cancel(errLost)
		case <-done:
		}
	}()
	return l.client.Call(ctx, method, arguments...)
}

// Close implements front.Link.
func (l *busLink) Close() { l.conn.Close() }
