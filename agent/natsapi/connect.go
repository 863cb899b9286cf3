package natsapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// Config says where the bus is and who connects.
type Config struct {
	URLs          []string
	CA, Cert, Key string                 // files in PEM; no TLS of its own where empty
	Source        func() (Access, error) // in place of URLs and files where these come from elsewhere; nil for none
	Dialer        Dialer                 // opens connections; nil for the usual way
	Subject       string                 // "agent.<agent_id>"
	Prefix        string                 // of the daemon's methods
	AgentID       string
}

// Dialer opens a connection to an address.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

// Access is where the bus is, and how it is entered. It is asked for anew before
// each connection, since URLs and certificates are replaced while a VM runs.
type Access struct {
	URLs          []string
	CA, Cert, Key []byte // PEM; none where empty
	BOSH          bool   // the server is known by its common name alone, as bosh-agent knows it
}

const (
	// dialTimeout bounds the attempt at one address, and its TLS handshake after it.
	dialTimeout = 5 * time.Second
	// redialWait is the pause before a connection that Dial made is made again.
	redialWait = 250 * time.Millisecond
	// redialPing is how often such a connection is tried, so that one that died
	// without a word is noticed after two of them.
	redialPing = 2 * time.Second
	// flushWait bounds the wait for the last answers to leave.
	flushWait = time.Second
)

// Dial connects for a client: once to each URL, until ctx ends at the latest. Once
// there, the connection is made again whenever it is lost, until it is closed.
func (c Config) Dial(ctx context.Context, name string) (*nats.Conn, error) {
	return c.connect(ctx, name,
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(redialWait),
		nats.ReconnectJitter(redialWait, redialWait),
		nats.PingInterval(redialPing),
		nats.ReconnectBufSize(-1), // a request that cannot be sent is an error, rather than sent later
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	)
}

// connect reads where the bus is and connects, once.
func (c Config) connect(ctx context.Context, name string, options ...nats.Option) (*nats.Conn, error) {
	access, err := c.access()
	if err != nil {
		return nil, err
	}
	d := &dialer{first: ctx, dial: c.Dialer}
	if d.dial == nil {
		d.dial = (&net.Dialer{}).DialContext
	}
	secure, err := access.tls(d.address)
	if err != nil {
		return nil, fmt.Errorf("cannot use the bus: %w", err)
	}
	options = append([]nats.Option{
		nats.Name(name), nats.Timeout(dialTimeout), nats.SetCustomDialer(d), nats.PermissionErrOnSubscribe(true),
	}, options...)
	if secure != nil {
		options = append(options, nats.Secure(secure))
	}
	conn, err := nats.Connect(strings.Join(access.URLs, ","), options...)
	if errors.As(err, new(*url.Error)) {
		err = errors.New("what is said to be its address is no address") // the error quotes it, and the password in it
	}
	if err != nil {
		return nil, fmt.Errorf("cannot connect to the bus: %w", d.explain(err))
	}
	d.connected.Store(true)
	return conn, nil
}

// access is what Source says, or what the files hold.
func (c Config) access() (Access, error) {
	if c.Source != nil {
		return c.Source()
	}
	a := Access{URLs: c.URLs}
	for _, one := range []struct {
		path string
		text *[]byte
	}{{c.CA, &a.CA}, {c.Cert, &a.Cert}, {c.Key, &a.Key}} {
		if one.path == "" {
			continue
		}
		var err error
		if *one.text, err = os.ReadFile(one.path); err != nil {
			return Access{}, fmt.Errorf("cannot use the bus: %w", err)
		}
	}
	return a, nil
}

// dialer opens the connections of a nats.Conn, and keeps why one could not be
// opened: nats.Connect says only that there is no server.
type dialer struct {
	dial      Dialer
	first     context.Context // bounds what comes before the first connection
	connected atomic.Bool
	peer      atomic.Value // of a string: the address that was dialled last
	failed    []error      // before the first connection
}

// Dial implements nats.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	d.peer.Store(address)
	parent := d.first
	if d.connected.Load() {
		parent = context.Background()
	}
	ctx, cancel := context.WithTimeout(parent, dialTimeout)
	defer cancel()
	conn, err := d.dial(ctx, network, address)
	if err != nil && parent != d.first {
		return nil, err
	}
	if err != nil {
		err = firewalled(d.first, err)
		d.failed = append(d.failed, err)
		return nil, err
	}
	// What follows is bounded by dialTimeout, which may be more than ctx leaves.
	return &bounded{Conn: conn, first: d}, nil
}

// address is what was dialled last.
func (d *dialer) address() string {
	peer, _ := d.peer.Load().(string)
	return peer
}

// firewalled names what makes an attempt time out on a BOSH VM.
func firewalled(ctx context.Context, err error) error {
	var network net.Error
	if ctx.Err() == nil && errors.As(err, &network) && network.Timeout() {
		return fmt.Errorf("%w: a stemcell's firewall drops what comes from other processes than bosh-agent, or from other users than root", err)
	}
	return err
}

// explain puts what the dialer knows in place of what nats.Connect says.
func (d *dialer) explain(err error) error {
	if cause := context.Cause(d.first); cause != nil {
		return errors.Join(append(d.failed, cause)...)
	}
	if !errors.Is(err, nats.ErrNoServers) && !slices.Contains(d.failed, err) {
		return errors.Join(append(d.failed, err)...)
	}
	if len(d.failed) > 0 {
		return errors.Join(d.failed...)
	}
	return err
}

// bounded is a connection whose first deadline is no later than that of the
// context: nats.Connect knows none.
type bounded struct {
	net.Conn
	first *dialer
}

// SetDeadline implements net.Conn.
func (b *bounded) SetDeadline(t time.Time) error {
	if end, ok := b.first.first.Deadline(); ok && !b.first.connected.Load() && !t.IsZero() && end.Before(t) {
		t = end
	}
	return b.Conn.SetDeadline(t)
}
