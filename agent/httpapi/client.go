package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/quiesced/quiesced/agent/api"
)

// Client calls a daemon over its unix socket, or over TCP. It implements api.Caller.
type Client struct {
	where string // the daemon listens
	url   string
	http  *http.Client
}

// NewClient makes a client of the daemon that listens on the socket. Nothing is
// connected before the first call.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return newClient(socket, "http://quiesced", &http.Transport{DialContext: dial})
}

// NewTCPClient makes a client of the daemon that listens on a host:port, whose
// certificate must be for that host. Files that cannot be used are an error.
func NewTCPClient(address string, f Files) (*Client, error) {
	config, err := f.client()
	if err != nil {
		return nil, err
	}
	return newClient(address, "https://"+address, &http.Transport{TLSClientConfig: config}), nil
}

func newClient(where, url string, transport *http.Transport) *Client {
	return &Client{where: where, url: url + "/v1/", http: &http.Client{Transport: transport}}
}

// Call makes one call. A daemon that cannot be reached is an *api.Error of
// KindUnreachable.
func (c *Client) Call(ctx context.Context, method string, arguments ...any) (json.RawMessage, error) {
	if arguments == nil {
		arguments = []any{}
	}
	body, err := json.Marshal(map[string]any{"arguments": arguments})
	if err != nil {
		return nil, fmt.Errorf("cannot encode the call of %s: %w", method, err)
	}
	if len(body) > MaxBody {
		return nil, &api.Error{Message: fmt.Sprintf("cannot call %s: the request has %d bytes, and the daemon takes %d", method, len(body), MaxBody)}
	}
	doc, err := c.post(ctx, method, body)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, c.unreachable(err)
	}
	return api.Decode(doc)
}

func (c *Client) post(ctx context.Context, method string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+url.PathEscape(method), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	return io.ReadAll(response.Body)
}

func (c *Client) unreachable(err error) error {
	return &api.Error{
		Kind:    api.KindUnreachable,
		Message: fmt.Sprintf("no daemon answers on %s: %v", c.where, err),
	}
}
