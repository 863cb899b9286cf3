package natsapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/quiesced/quiesced/agent/api"
)

// Bounds of the calls of one method that are answered at a time. Each method has
// its own, so that no flood of get_task, which waits for long, keeps a
// cancel_task out.
const (
	maxCalls   = 64
	maxWaiting = 256 // of a method that waits
)

// Server serves a Handler on the bus.
type Server struct {
	handler *api.Handler
	config  Config
	log     *slog.Logger
	slots   map[string]chan struct{} // of each method and of others (""): one token per call under way
	calls   sync.WaitGroup
}

// NewServer makes a server. It serves nothing before Serve.
func NewServer(h *api.Handler, c Config, log *slog.Logger) *Server {
	s := &Server{handler: h, config: c, log: log, slots: map[string]chan struct{}{}}
	for _, method := range append(api.Methods(), "") {
		s.slots[method] = make(chan struct{}, maxCalls)
		if api.Waits(method) {
			s.slots[method] = make(chan struct{}, maxWaiting)
		}
	}
	return s
}

// Serve connects and answers until ctx ends. It returns an error only for a
// configuration that can never work.
func (s *Server) Serve(ctx context.Context) error {
	conn, err := s.config.Connect("quiesced "+s.config.AgentID, s.log)
	if err != nil {
		return err
	}
	defer conn.Close()
	requests, err := conn.SubscribeSync(s.config.Subject)
	if err != nil {
		return fmt.Errorf("cannot subscribe to %q: %w", s.config.Subject, err)
	}
	err = s.receiveAll(ctx, conn, requests)
	s.calls.Wait()
	_ = conn.FlushTimeout(flushWait)
	return err
}

func (s *Server) receiveAll(ctx context.Context, conn *nats.Conn, requests *nats.Subscription) error {
	for ctx.Err() == nil {
		m, err := requests.NextMsgWithContext(ctx)
		switch {
		case err == nil:
			s.receive(ctx, conn, m.Data)
		case errors.Is(err, nats.ErrSlowConsumer): // requests were lost, which is logged already
		case ctx.Err() == nil:
			return fmt.Errorf("cannot receive from the bus: %w", err)
		}
	}
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
	slot, known := s.slots[method]
	if !known {
		slot = s.slots[""]
	}
	call := api.Call{
		Method: method, FullName: m.Method, Arguments: m.Arguments, By: m.ReplyTo, From: conn.ConnectedAddr(),
		Role: api.RoleOperator, // the bus admits a director alone to this subject
	}
	select {
	case slot <- struct{}{}:
	default:
		err := &api.Error{Kind: api.KindBusy, Message: fmt.Sprintf("busy: %d such requests are under way", cap(slot))}
		s.handler.Refused(call, err)
		s.reply(conn, m, nil, err)
		return
	}
	s.calls.Go(func() {
		defer func() { <-slot }()
		value, err := s.handler.Call(ctx, call)
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
