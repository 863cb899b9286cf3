package natsapi

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/quiesced/quiesced/agent/api"
)

// maxCalls bounds the calls answered at a time; get_task may wait for long.
const maxCalls = 64

// Server serves a Handler on the bus.
type Server struct {
	handler *api.Handler
	config  Config
	log     *slog.Logger
	free    chan struct{} // one token per call under way
	calls   sync.WaitGroup
}

// NewServer makes a server. It serves nothing before Serve.
func NewServer(h *api.Handler, c Config, log *slog.Logger) *Server {
	return &Server{handler: h, config: c, log: log, free: make(chan struct{}, maxCalls)}
}

// Serve connects and answers until ctx ends. It returns an error only for a
// configuration that can never work.
func (s *Server) Serve(ctx context.Context) error {
	conn, err := s.config.Connect("quiesced "+s.config.AgentID, s.log)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Subscribe(s.config.Subject, func(m *nats.Msg) { s.receive(ctx, conn, m.Data) }); err != nil {
		return fmt.Errorf("cannot subscribe to %q: %w", s.config.Subject, err)
	}
	<-ctx.Done()
	s.calls.Wait()
	_ = conn.FlushTimeout(reconnectWait)
	return nil
}

// receive hands a request on. It never waits: the next one may be cancel_task.
func (s *Server) receive(ctx context.Context, conn *nats.Conn, data []byte) {
	m, ok := parse(data)
	if !ok || !answerable(m.ReplyTo, s.config.AgentID) {
		return
	}
	method, ours := strings.CutPrefix(m.Method, s.config.Prefix)
	if !ours {
		return // bosh-agent's
	}
	select {
	case s.free <- struct{}{}:
	default:
		s.reply(conn, m, nil, &api.Error{Kind: api.KindBusy, Message: fmt.Sprintf("busy: %d requests are under way", maxCalls)})
		return
	}
	s.calls.Go(func() {
		defer func() { <-s.free }()
		value, err := s.handler.Call(ctx, api.Call{
			Method: method, FullName: m.Method, Arguments: m.Arguments, By: m.ReplyTo,
		})
		s.reply(conn, m, value, err)
	})
}

func (s *Server) reply(conn *nats.Conn, m message, value any, err error) {
	doc := api.Encode(value, err)
	if limit := conn.MaxPayload(); limit > 0 && int64(len(doc)) > limit {
		doc = api.Encode(nil, &api.Error{
			Kind:    api.KindFailed,
			Message: fmt.Sprintf("the answer to %.64s has %d bytes, and the bus takes %d", m.Method, len(doc), limit),
		})
	}
	if err := conn.Publish(m.ReplyTo, doc); err != nil {
		s.log.Warn("cannot answer on the bus", "method", fmt.Sprintf("%.64s", m.Method), "error", err)
	}
}
