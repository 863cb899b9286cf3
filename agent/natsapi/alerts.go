package natsapi

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/quiesced/quiesced/agent"
)

// keptAlerts bounds the alerts that wait for a bus that is away.
const keptAlerts = 64

// Alerts tells the director's health monitor of runs that went wrong. It is an
// agent.Observer; a Server sends what it is told. While the bus is away the newest
// are kept.
type Alerts struct {
	agentID string
	wake    chan struct{} // holds a token when there may be something to send

	mu      sync.Mutex
	waiting []Alert // guarded by mu: oldest first
	dropped int     // guarded by mu: since the last that was sent
}

// NewAlerts makes what alerts of a VM's agent wait in.
func NewAlerts(agentID string) *Alerts {
	return &Alerts{agentID: agentID, wake: make(chan struct{}, 1)}
}

// RunEnded implements agent.Observer.
func (a *Alerts) RunEnded(r agent.Report) {
	if alert, ok := AlertOf(r); ok {
		a.Raise(alert)
	}
}

// VerificationEnded implements agent.Observer.
func (a *Alerts) VerificationEnded(v agent.Verified, err error) {
	if alert, ok := AlertOfVerification(v, err); ok {
		a.Raise(alert)
	}
}

// JournalFailed implements agent.Observer: quiesced_journal_errors_total tells of it.
func (*Alerts) JournalFailed() {}

// Raise has an alert sent, and returns at once. One that would be too many drops the
// oldest.
func (a *Alerts) Raise(alert Alert) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting) == keptAlerts {
		a.waiting = a.waiting[1:]
		a.dropped++
	}
	a.waiting = append(a.waiting, alert)
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// send sends what waits and what comes, until ctx or the connection ends. An alert
// waits until the bus has it; it may be sent twice, under the same id.
func (a *Alerts) send(ctx context.Context, conn *nats.Conn, log *slog.Logger) {
	if a == nil {
		return
	}
	for {
		alert, dropped, ok := a.oldest()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-a.wake:
				continue
			}
		}
		if dropped > 0 {
			log.Warn("alerts were dropped while the bus was away", "number", dropped)
		}
		if err := a.publish(ctx, conn, alert); err != nil {
			log.Warn("cannot send an alert yet", "alert", alert.ID, "error", err)
			if sleep(ctx, lastPause); ctx.Err() != nil {
				return
			}
			continue // the connection may be slow, and not lost
		}
		a.sent(alert, dropped)
	}
}

func (a *Alerts) publish(ctx context.Context, conn *nats.Conn, alert Alert) error {
	doc, err := json.Marshal(alert)
	if err != nil {
		return fmt.Errorf("cannot encode an alert: %w", err)
	}
	if err := conn.Publish("hm.agent.alert."+a.agentID, doc); err != nil {
		return fmt.Errorf("cannot send an alert: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return conn.FlushWithContext(ctx)
}

// oldest is the next alert to send, and how many were dropped before it.
func (a *Alerts) oldest() (alert Alert, dropped int, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting) == 0 {
		return Alert{}, 0, false
	}
	return a.waiting[0], a.dropped, true
}

// sent forgets an alert that the bus has, unless it was dropped meanwhile.
func (a *Alerts) sent(alert Alert, told int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dropped -= told
	if len(a.waiting) > 0 && a.waiting[0].ID == alert.ID {
		a.waiting = a.waiting[1:]
	}
}
