package main

import (
	"context"
	"log/slog"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/quiesced/quiesced/agent"
)

// serviceManager tells systemd how the daemon is. Without systemd it tells
// nobody.
type serviceManager struct {
	log   *slog.Logger
	turns chan struct{} // one token for each turn of the run loop that is yet to be told
}

func newServiceManager(log *slog.Logger) *serviceManager {
	return &serviceManager{log: log, turns: make(chan struct{}, 1)}
}

// turned is called from the run loop and never blocks. A turn that is not told
// yet stands for this one as well.
func (m *serviceManager) turned() {
	select {
	case m.turns <- struct{}{}:
	default:
	}
}

// tell passes each turn of the run loop on to the watchdog, until ctx ends, and
// with it what the daemon is doing where that has changed. It is no part of the
// run loop, since a service manager that hangs would keep it waiting.
func (m *serviceManager) tell(ctx context.Context, a *agent.Agent) error {
	told := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.turns:
		}
		if doing := statusLine(a); doing != told {
			m.notify("STATUS=" + doing)
			told = doing
		}
		m.notify(daemon.SdNotifyWatchdog)
	}
}

// statusLine is what the daemon is doing, on one line.
func statusLine(a *agent.Agent) string {
	work, phase, _ := a.Now()
	if work == "" {
		work = "idle"
	}
	line := strings.TrimSpace(work + " " + string(phase))
	if stuck := a.Stuck(); len(stuck) > 0 {
		line += "; NOT THAWED: " + strings.Join(stuck, "; ")
	}
	return oneLine(line)
}

func (m *serviceManager) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		m.log.Warn("cannot notify the service manager", "error", err)
	}
}
