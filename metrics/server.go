package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"
)

// Server serves /metrics, /healthz and a landing page.
type Server struct {
	http      *http.Server
	webConfig string // exporter-toolkit's file for TLS and authentication, "" for none
	log       *slog.Logger
}

// NewServer makes the server. healthy says why the daemon is not well, nil if
// it is; it must answer at once.
func NewServer(m *Metrics, webConfig string, healthy func() error, log *slog.Logger) (*Server, error) {
	landing, err := web.NewLandingPage(web.LandingConfig{
		Name:        "quiesced",
		Description: "Clean snapshots of persistent disks",
		Version:     version.Info(),
		Links: []web.LandingLinks{
			{Address: "/metrics", Text: "Metrics"},
			{Address: "/healthz", Text: "Health"},
		},
		Profiling: "false",
	})
	if err != nil {
		return nil, fmt.Errorf("cannot make the landing page: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", landing)
	mux.Handle("GET /metrics", m.Handler(log))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := healthy(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	return &Server{
		http:      &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second},
		webConfig: webConfig,
		log:       log,
	}, nil
}

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = s.http.Close() })
	defer stop()
	err := web.Serve(l, s.http, &web.FlagConfig{WebConfigFile: &s.webConfig}, s.log)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("cannot serve metrics on %s: %w", l.Addr(), err)
}
