package natsapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
)

const (
	// answerWait is how long a client waits for an answer, as a director does.
	answerWait = 45 * time.Second
	// refusalWait is how long it waits for the daemon once bosh-agent has
	// refused the method, unless the daemon itself would wait before it answers.
	refusalWait = 3 * time.Second
)

// Client calls a VM's daemon as a director would. It implements api.Caller.
type Client struct {
	conn         *nats.Conn
	config       Config
	directorUUID string
	answerWait   time.Duration
	refusalWait  time.Duration
}

// NewClient makes a client over a connection that may publish to the VM's
// subject and subscribe to director.<uuid>.>.
func NewClient(conn *nats.Conn, c Config, directorUUID string) *Client {
	return &Client{conn, c, directorUUID, answerWait, refusalWait}
}

// Call makes one call. A daemon that does not answer, and a bus that is lost before it
// does, are an *api.Error of KindUnreachable. What was asked may have been done: the
// same call again, with the same id, finds out.
func (c *Client) Call(ctx context.Context, method string, arguments ...any) (json.RawMessage, error) {
	if arguments == nil {
		arguments = []any{}
	}
	replyTo := fmt.Sprintf("director.%s.%s.%s", c.directorUUID, c.config.AgentID, agent.NewID())
	ctx, stop := c.whileConnected(ctx)
	defer stop()
	answers, err := c.conn.SubscribeSync(replyTo)
	if err != nil {
		return nil, fmt.Errorf("cannot subscribe to %q: %w", replyTo, err)
	}
	defer func() { _ = answers.Unsubscribe() }()
	request, err := json.Marshal(map[string]any{
		"protocol": 3, "method": c.config.Prefix + method, "arguments": arguments, "reply_to": replyTo,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot encode the call of %s: %w", method, err)
	}
	if limit := c.conn.MaxPayload(); limit > 0 && int64(len(request)) > limit {
		return nil, &api.Error{Message: fmt.Sprintf("cannot call %s: the request has %d bytes, and the bus takes %d", method, len(request), limit)}
	}
	// The reply subject is in the request; the bus needs it, too, to say that
	// nobody is subscribed.
	if err := c.conn.PublishRequest(c.config.Subject, replyTo, request); err != nil {
		return nil, c.unreachable(err)
	}
	return c.receive(ctx, answers, method)
}

// receive waits for the daemon's answer, passing over bosh-agent's.
func (c *Client) receive(ctx context.Context, answers *nats.Subscription, method string) (json.RawMessage, error) {
	value, err := c.next(ctx, answers, c.answerWait)
	var refusal *api.Error
	if !errors.As(err, &refusal) || refusal.Kind != api.KindInvalid || refusal.Message != "unknown message "+c.config.Prefix+method {
		return value, err
	}
	wait := c.refusalWait
	if api.Waits(method) {
		wait = c.answerWait
	}
	value, err = c.next(ctx, answers, wait)
	if api.KindOf(err) == api.KindUnreachable {
		err = c.unreachable(fmt.Errorf("bosh-agent answered %w, and no daemon did", refusal))
	}
	return value, err
}

// next is the next answer, if it comes within the time.
func (c *Client) next(ctx context.Context, answers *nats.Subscription, within time.Duration) (json.RawMessage, error) {
	limit, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	m, err := answers.NextMsgWithContext(limit)
	switch {
	case err == nil:
		return api.Decode(m.Data)
	case errors.Is(context.Cause(ctx), errLost):
		return nil, c.unreachable(errLost)
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	return nil, c.unreachable(err)
}

// errLost is the cause when the connection ends under a call: an answer that went to
// the bus meanwhile does not come any more.
var errLost = errors.New("the connection to the bus was lost")

// whileConnected is a context that ends when the connection is lost, too.
func (c *Client) whileConnected(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	changes := c.conn.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-changes:
			cancel(errLost)
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		cancel(nil)
		watching.Wait()
		c.conn.RemoveStatusListener(changes)
	}
}

func (c *Client) unreachable(err error) error {
	return &api.Error{
		Kind:    api.KindUnreachable,
		Message: fmt.Sprintf("no daemon answers on %s: %v", c.config.Subject, err),
	}
}
