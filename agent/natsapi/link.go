package natsapi

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Pauses between two attempts to reach the bus. Each is twice the one before, and
// shortened at random, since every VM of a director loses its bus at once.
const (
	firstPause = time.Second
	lastPause  = 8 * time.Second
	// pingInterval is how often the connection is tried: a bus that has gone without
	// a word is noticed after two of them.
	pingInterval = 20 * time.Second
	// maxPending bounds what has come in and was not looked at yet, in bytes. What
	// comes then is lost, as with any subscriber that is too slow.
	maxPending = 16 << 20
)

// Serve connects and answers until ctx ends. The bus, and what Config.Source says of
// it, may be away or wrong for any time: both are tried again for ever, and looked at
// anew before each attempt. Files that are configured and cannot be read at the
// start are an error.
func (s *Server) Serve(ctx context.Context) error {
	if s.config.Source == nil {
		access, err := s.config.access()
		if err == nil {
			_, err = access.tls(nil)
		}
		if err != nil {
			return err
		}
	}
	for pause, told := firstPause, ""; ctx.Err() == nil; {
		served, lost := s.attend(ctx)
		if served {
			pause, told = firstPause, ""
		}
		if ctx.Err() == nil && lost.Error() != told { // else the bus is away still
			told = lost.Error()
			s.log.Warn("the bus is away", "error", lost)
		}
		sleep(ctx, pause/2+rand.N(pause/2))
		pause = min(2*pause, lastPause)
	}
	s.calls.wait()
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// attend connects, once, and answers until the connection is lost. It says whether it
// was there. The calls under way go on without it.
func (s *Server) attend(ctx context.Context) (served bool, err error) {
	conn, err := s.config.connect(ctx, "quiesced "+s.config.AgentID,
		nats.NoReconnect(), // what comes next is another Access
		nats.PingInterval(pingInterval),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			s.log.Error("the bus reports an error", "error", err)
		}))
	if err != nil {
		return false, err
	}
	defer conn.Close()
	s.conn.Store(conn)
	defer s.conn.Store(nil)
	requests, err := s.subscribe(ctx, conn)
	if err != nil {
		return false, err
	}
	s.log.Info("on the bus", "url", conn.ConnectedUrlRedacted(), "subject", s.config.Subject)
	sendingCtx, stop := context.WithCancel(ctx)
	var sending sync.WaitGroup
	sending.Go(func() { s.alerts.send(sendingCtx, conn, s.log) })
	err = s.receiveAll(ctx, requests)
	stop()
	sending.Wait()
	if ctx.Err() != nil { // the last answers are sent
		s.calls.wait()
		_ = conn.FlushTimeout(flushWait)
	}
	if last := conn.LastError(); last != nil {
		err = fmt.Errorf("the connection was lost: %w", last)
	}
	return true, err
}

// subscribe subscribes, and learns whether it may: a bus that knows the certificate
// of another VM says so before it answers the flush.
func (s *Server) subscribe(ctx context.Context, conn *nats.Conn) (*nats.Subscription, error) {
	requests, err := conn.SubscribeSync(s.config.Subject)
	if err == nil {
		err = requests.SetPendingLimits(nats.DefaultSubPendingMsgsLimit, maxPending)
	}
	if err == nil {
		err = conn.FlushTimeout(dialTimeout)
	}
	if err == nil {
		var first *nats.Msg
		if first, err = requests.NextMsg(0); err == nil {
			s.receive(ctx, first.Data)
		}
	}
	if err != nil && !errors.Is(err, nats.ErrTimeout) {
		return nil, fmt.Errorf("cannot subscribe to %q: %w", s.config.Subject, err)
	}
	return requests, nil
}

// receiveAll hands on every request until ctx ends or the connection does.
func (s *Server) receiveAll(ctx context.Context, requests *nats.Subscription) error {
	for {
		m, err := requests.NextMsgWithContext(ctx)
		switch {
		case err == nil:
			s.receive(ctx, m.Data)
		case errors.Is(err, nats.ErrSlowConsumer): // requests were lost, which is logged already
		default:
			return fmt.Errorf("cannot receive from the bus: %w", err)
		}
	}
}
