package natsapi

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

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
	alerts  *Alerts
	log     *slog.Logger
	slots   map[string]chan struct{} // of each method and of others (""): one token per call under way
	calls   *workers
	conn    atomic.Pointer[nats.Conn] // nil while the bus is away
}

// NewServer makes a server that also sends the alerts, nil for none. It serves
// nothing before Serve.
func NewServer(h *api.Handler, c Config, alerts *Alerts, log *slog.Logger) *Server {
	s := &Server{handler: h, config: c, alerts: alerts, log: log, calls: newWorkers(), slots: map[string]chan struct{}{}}
	for _, method := range append(api.Methods(), "") {
		s.slots[method] = make(chan struct{}, maxCalls)
		if api.Waits(method) {
			s.slots[method] = make(chan struct{}, maxWaiting)
		}
	}
	return s
}

// receive hands a request on. It never waits: the next one may be cancel_task.
func (s *Server) receive(ctx context.Context, data []byte) {
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
		Method: method, FullName: m.Method, Arguments: m.Arguments, By: m.ReplyTo, From: s.from(),
		Role: api.RoleOperator, // the bus admits a director alone to this subject
	}
	select {
	case slot <- struct{}{}:
	default:
		err := &api.Error{Kind: api.KindBusy, Message: fmt.Sprintf("busy: %d such requests are under way", cap(slot))}
		s.handler.Refused(call, err)
		s.reply(m, nil, err)
		return
	}
	s.calls.do(func() {
		defer func() { <-slot }()
		value, err := s.handler.Call(ctx, call)
		s.reply(m, value, err)
	})
}

// from is the address by which requests come in, for the record.
func (s *Server) from() string {
	if conn := s.conn.Load(); conn != nil {
		return conn.ConnectedAddr()
	}
	return ""
}

// reply answers on the connection that there is now. While the bus is away nobody
// waits for the answer any more who would not ask again.
func (s *Server) reply(m message, value any, err error) {
	conn := s.conn.Load()
	if conn == nil {
		return
	}
	doc := api.Encode(value, err)
	if limit := conn.MaxPayload(); limit > 0 && int64(len(doc)) > limit {
		doc = shortened(m.Method, doc, err, int(limit))
	}
	if err := conn.Publish(m.ReplyTo, doc); err != nil {
		s.log.Warn("cannot answer on the bus", "method", fmt.Sprintf("%.64s", m.Method), "error", err)
	}
}
