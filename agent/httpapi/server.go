package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/quiesced/quiesced/agent/api"
)

// MaxBody bounds a call's body, in bytes.
const MaxBody = 1 << 20

// Server serves a Handler on a listener.
type Server struct {
	handler *api.Handler
	who     func(*http.Request) caller
	http    *http.Server
}

// caller is who makes a request, and what he may do.
type caller struct {
	by   string
	from string // host:port, "" on this machine
	role api.Role
}

// NewServer makes a server, for a listener of Listen, that serves root and those who
// have access.
func NewServer(h *api.Handler, a Access, log *slog.Logger) *Server {
	return newServer(h, log, a.who)
}

func newServer(h *api.Handler, log *slog.Logger, who func(*http.Request) caller) *Server {
	s := &Server{handler: h, who: who}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/{method...}", s.call)
	s.http = &http.Server{
		Handler:           mux,
		ConnContext:       withPeer,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return s
}

// Serve answers until ctx ends, then lets calls under way finish for a moment.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.http.BaseContext = func(net.Listener) context.Context { return ctx }
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if s.http.Shutdown(grace) != nil {
			_ = s.http.Close()
		}
	})
	err := s.http.Serve(l)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("cannot serve on %s: %w", l.Addr(), err)
}

func (s *Server) call(w http.ResponseWriter, r *http.Request) {
	from := s.who(r)
	c := api.Call{Method: r.PathValue("method"), By: from.by, From: from.from, Role: from.role}
	if c.Role != api.RoleNone { // nothing is read from anybody else, and the handler refuses him
		var err error
		if c.Arguments, err = readArguments(w, r); err != nil {
			err = &api.Error{Message: err.Error()}
			s.handler.Refused(c, err)
			answer(w, nil, err)
			return
		}
	}
	value, err := s.handler.Call(r.Context(), c)
	answer(w, value, err)
}

func readArguments(w http.ResponseWriter, r *http.Request) (json.RawMessage, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		return nil, fmt.Errorf("cannot read the call: %w", err)
	}
	if len(body) == 0 {
		return nil, nil
	}
	var call struct {
		Arguments json.RawMessage `json:"arguments"`
	}
	if err := json.Unmarshal(body, &call); err != nil {
		return nil, fmt.Errorf("cannot read the call: %w", err)
	}
	return call.Arguments, nil
}

// statuses are the HTTP statuses of kinds of error; others are 500.
var statuses = map[api.Kind]int{
	api.KindInvalid:       http.StatusBadRequest,
	api.KindForbidden:     http.StatusForbidden,
	api.KindUnknownMethod: http.StatusNotFound,
	api.KindNotFound:      http.StatusNotFound,
	api.KindBusy:          http.StatusConflict,
	api.KindRefused:       http.StatusUnprocessableEntity,
}

func answer(w http.ResponseWriter, value any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		status, ok := statuses[api.KindOf(err)]
		if !ok {
			status = http.StatusInternalServerError
		}
		w.WriteHeader(status)
	}
	_, _ = w.Write(append(api.Encode(value, err), '\n'))
}
