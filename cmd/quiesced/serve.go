package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/common/version"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/httpapi"
	"github.com/quiesced/quiesced/agent/journal"
	"github.com/quiesced/quiesced/agent/natsapi"
	"github.com/quiesced/quiesced/metrics"
	"github.com/quiesced/quiesced/quiesce"
	"github.com/quiesced/quiesced/quiesce/guard"
)

// guardName is the guard's executable, beside the daemon's own.
const guardName = "quiesced-guard"

func serveVerb(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(g.config)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), c, newLogger(c.Log, g.err))
		},
	}
}

func newLogger(c LogConfig, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // checked with the configuration
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// task is a long-running part of the daemon.
type task struct {
	name string
	run  func(context.Context) error
}

// serve builds the daemon and runs it until ctx ends. Everything is constructed
// here: the journal, then what an earlier daemon left, then who may ask.
func serve(ctx context.Context, c *Config, log *slog.Logger) error {
	binary, err := openGuard()
	if err != nil {
		return err
	}
	records, err := journal.Open(c.StateDir)
	if err != nil {
		return err
	}
	defer func() { _ = records.Close() }()
	if err := errors.Join(os.RemoveAll(c.callsDir()), os.Mkdir(c.callsDir(), 0o700)); err != nil {
		return fmt.Errorf("cannot empty the directory of CPI calls: %w", err)
	}
	gid, err := httpapi.GroupID(c.Listen.Group)
	if err != nil {
		return err
	}
	socket, err := httpapi.Listen(c.Listen.Socket, gid)
	if err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()

	m := metrics.New()
	m.Process()
	a := agent.New(agent.Parts{
		Settings: c.settings(),
		Journal:  records,
		Freezer:  &quiesce.Freezer{Binary: binary, Dir: c.runtimeDir()},
		CPI:      c.cpiClient(),
		Observer: m,
		Log:      log,
	})
	defer a.Close() // where an error comes before the tasks
	if err := a.Recover(ctx); err != nil {
		return err
	}
	if err := m.Watch(a); err != nil {
		return err
	}
	for _, err := range checkMachine(c) {
		log.Warn("snapshots will be refused as things are", "error", err)
	}
	handler := &api.Handler{Agent: a, Version: version.Version, Samples: metrics.Samples, Metrics: m.Text}
	tasks := []task{
		{"agent", func(ctx context.Context) error { a.Run(ctx); a.Close(); return nil }},
		{"socket", func(ctx context.Context) error { return httpapi.NewServer(handler, gid, log).Serve(ctx, socket) }},
	}
	if len(c.NATS.URLs) > 0 {
		tasks = append(tasks, task{"bus", natsapi.NewServer(handler, c.bus(), log).Serve})
	}
	if c.Listen.Metrics != "" {
		t, err := metricsTask(c, m, a, log)
		if err != nil {
			return err
		}
		tasks = append(tasks, t)
	}
	return runTasks(ctx, tasks, log)
}

// openGuard opens the guard's executable once: a package directory that is
// removed under the running daemon takes nothing away from it.
func openGuard() (*guard.Binary, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cannot find the guard: %w", err)
	}
	return guard.OpenBinary(filepath.Join(filepath.Dir(self), guardName))
}

func metricsTask(c *Config, m *metrics.Metrics, a *agent.Agent, log *slog.Logger) (task, error) {
	l, err := net.Listen("tcp", c.Listen.Metrics)
	if err != nil {
		return task{}, fmt.Errorf("cannot listen for metrics: %w", err)
	}
	server, err := metrics.NewServer(m, c.Listen.WebConfig, func() error { return healthy(a) }, log)
	if err != nil {
		return task{}, err
	}
	return task{"metrics", func(ctx context.Context) error { return server.Serve(ctx, l) }}, nil
}

// healthy is not well as long as something of ours cannot be thawed or recorded.
func healthy(a *agent.Agent) error {
	s, err := a.Status()
	if err != nil {
		return err
	}
	if len(s.Stuck)+len(s.Unsaved) > 0 {
		return fmt.Errorf("not thawed: %q, not recorded: %q", s.Stuck, s.Unsaved)
	}
	return nil
}

// runTasks runs all until ctx ends or one fails, and tells systemd.
func runTasks(ctx context.Context, tasks []task, log *slog.Logger) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, t := range tasks {
		group.Go(func() error {
			if err := t.run(ctx); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			return nil
		})
	}
	debug.FreeOSMemory() // what only start-up needed
	log.Info("serving", "version", version.Version)
	notify(log, daemon.SdNotifyReady)
	<-ctx.Done()
	notify(log, daemon.SdNotifyStopping)
	log.Info("stopping")
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("cannot notify systemd", "error", err)
	}
}
