package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

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

// extendBy is for how much longer the service manager is asked to wait, each second.
const extendBy = 10 * time.Second

// extend asks for more time to stop for as long as jobs are being set going again,
// until done is closed: nobody else would do it before the next daemon.
func (m *serviceManager) extend(done <-chan struct{}, a *agent.Agent) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if a.Resuming() {
			m.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", extendBy.Microseconds()))
		}
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}

// statusLine is what the daemon is doing, on one line.
func statusLine(a *agent.Agent) string {
	work, phase, _ := a.Now()
	if work == "" {
		work = "idle"
	}
	line := strings.TrimSpace(work + " " + string(phase) + doing(a))
	if down := a.NotGoing(); len(down) > 0 {
		line += "; NOT GOING AGAIN: " + strings.Join(down, "; ")
	}
	if stuck := a.Stuck(); len(stuck) > 0 {
		line += "; NOT THAWED: " + strings.Join(stuck, "; ")
	}
	return oneLine(line)
}

// doing is what is being done to each job and service, where something is.
func doing(a *agent.Agent) string {
	s := a.Doing()
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(s)) {
		parts = append(parts, name+" "+s[name])
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

func (m *serviceManager) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		m.log.Warn("cannot notify the service manager", "error", err)
	}
}
