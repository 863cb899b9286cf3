package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/common/version"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

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
			if err := c.identify(cmd.Context(), settingsPatience); err != nil {
				return err
			}
			// A log that nobody reads any more ends nothing. Ignoring the signal would
			// be inherited by every CPI; catching it is not.
			signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
			held := newHeldLog(g.err)
			defer held.Flush()
			return serve(cmd.Context(), c, held, newLogger(c.Log, held))
		},
	}
}

// task is a long-running part of the daemon.
type task struct {
	name string
	run  func(context.Context) error
}

// serve builds the daemon and runs it until ctx ends. Everything is constructed
// here. What an earlier daemon left frozen comes first, for it needs nothing
// else; then the socket, which only one daemon can have, the journal, the runs
// that were cut off, and who may ask.
func serve(ctx context.Context, c *Config, held *heldLog, log *slog.Logger) error {
	binary, err := openGuard()
	if err != nil {
		return err
	}
	dial := c.passFirewall(log)
	freezer := &quiesce.Freezer{Binary: binary, Dir: c.runtimeDir()}
	left, unread := recoverFreezes(ctx, freezer)
	m := metrics.New()
	m.Process()
	access, err := c.Listen.access()
	if err != nil {
		return err
	}
	socket, err := httpapi.Listen(c.Listen.Socket, access)
	if err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()
	records, err := openJournal(c.StateDir, m, log)
	if err != nil {
		return err
	}
	defer func() { _ = records.Close() }()
	if err := emptyDir(c.callsDir()); err != nil {
		return err
	}

	watch := newServiceManager(log)
	alerts := natsapi.NewAlerts(c.Instance.AgentID)
	keeper := c.timekeeper(log)
	a := agent.New(agent.Parts{
		Settings:   c.settings(),
		Timekeeper: keeper,
		Scratch:    journal.ScratchFile{Path: filepath.Join(c.StateDir, "verification.json")},
		Supervised: c.supervised(log),
		Journal:    records,
		Freezer:    freezer,
		CPI:        c.cpiClient(),
		Copies:     c.copies(),
		Observer:   agent.Observers{m, alerts},
		Log:        log,
		Writes:     held,
		Turned:     watch.turned,
	})
	defer a.Close() // where an error comes before the tasks
	if err := errors.Join(a.Recover(left, unread), m.Watch(a)); err != nil {
		return err
	}
	a.FindCopies(ctx)
	for _, err := range checkMachine(c) {
		log.Warn("snapshots will be refused as things are", "error", err)
	}
	handler := &api.Handler{
		Agent: a, Version: version.Version, Samples: metrics.Samples, Metrics: m.Text,
		Audit: newAudit(c.Log, half{held}),
	}
	tasks := []task{
		{"agent", func(ctx context.Context) error { a.Run(ctx); a.Close(); return nil }},
		{"socket", func(ctx context.Context) error { return httpapi.NewServer(handler, access, log).Serve(ctx, socket) }},
	}
	if keeper != nil {
		tasks = append(tasks, task{"schedules", func(ctx context.Context) error { return keepTime(ctx, keeper, a) }})
	}
	if c.Verify.Schedule != "" {
		tasks = append(tasks, task{"verifications", func(ctx context.Context) error { return c.keepVerifying(ctx, a, log) }})
	}
	if c.Keep.Schedule != "" {
		tasks = append(tasks, task{"retention", func(ctx context.Context) error { return c.keepRetaining(ctx, a) }})
	}
	if c.joinsBus(log) {
		tasks = append(tasks, task{"bus", natsapi.NewServer(handler, c.bus(dial), alerts, log).Serve})
	}
	if c.Listen.TCP.Address != "" {
		t, err := c.Listen.TCP.task(ctx, handler, log)
		if err != nil {
			return err
		}
		tasks = append(tasks, t)
	}
	if c.Listen.Metrics != "" {
		t, err := metricsTask(ctx, c, m, a, log)
		if err != nil {
			return err
		}
		tasks = append(tasks, t)
	}
	tasks = append(tasks, task{"service manager", func(ctx context.Context) error { return watch.tell(ctx, a) }})
	return c.runDeployed(ctx, tasks, watch, a, log)
}

// recoverPatience is how long a freeze that was left may keep the daemon from
// serving. What is not thawed by then is tried again while it serves.
const recoverPatience = 5 * time.Second

func recoverFreezes(ctx context.Context, f *quiesce.Freezer) ([]guard.Recovered, error) {
	ctx, cancel := context.WithTimeout(ctx, recoverPatience)
	defer cancel()
	return f.Recover(ctx, guard.RecoverOptions{})
}

// openJournal opens the journal, and tells of records that cannot be read.
func openJournal(dir string, m *metrics.Metrics, log *slog.Logger) (*journal.Journal, error) {
	records, err := journal.Open(dir)
	if err != nil {
		return nil, err
	}
	damaged, err := records.Damaged()
	if err != nil {
		m.JournalFailed()
		log.Error("cannot tell which records are damaged", "error", err)
	}
	for _, id := range damaged.Runs {
		m.JournalFailed()
		log.Error("the journal has a record that cannot be read; what its run did is not known", "run", id)
	}
	for _, key := range damaged.Snapshots {
		m.JournalFailed()
		log.Error("the catalogue has an entry that cannot be read; its snapshot is in no list", "snapshot", key)
	}
	return records, nil
}

// emptyDir makes a directory, or empties the one that is there.
func emptyDir(dir string) error {
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return fmt.Errorf("cannot empty %q: %w", dir, err)
	}
	return nil
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

func metricsTask(ctx context.Context, c *Config, m *metrics.Metrics, a *agent.Agent, log *slog.Logger) (task, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen.Metrics)
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
	if len(s.Stuck)+len(s.Unsaved)+len(s.NotGoing) > 0 {
		return fmt.Errorf("not thawed: %q, not going: %q, not recorded: %q", s.Stuck, s.NotGoing, s.Unsaved)
	}
	return nil
}

// runTasks runs all until ctx ends or one fails, and tells the service manager.
func runTasks(ctx context.Context, tasks []task, watch *serviceManager, a *agent.Agent, log *slog.Logger) error {
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
	watch.notify(daemon.SdNotifyReady)
	<-ctx.Done()
	watch.notify(daemon.SdNotifyStopping)
	log.Info("stopping")
	stopped := make(chan struct{})
	var extending sync.WaitGroup
	defer extending.Wait()
	defer close(stopped)
	extending.Go(func() { watch.extend(stopped, a) })
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
