package monit

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/netclass"
)

// Config says where monit is. The zero value is that of a BOSH VM.
type Config struct {
	URL      string // "" for http://127.0.0.1:2822
	UserFile string // holds user:password; "" for /var/vcap/monit/monit.user
	Group    string // whose services are the instance's; "" for vcap
}

// Client is a jobs.Supervisor, whose calls may be made at once.
type Client struct {
	config Config
	http   *http.Client
	token  string // what cookie and field have to agree in; any will do

	mu          sync.Mutex                // guards what follows
	seen        map[string][]jobs.Process // a service's processes when monit last showed its pid
	pidFiles    map[string]string         // as the pages of the monit that has this
	incarnation string                    // told
}

// How long monit may take, which answers from memory.
const (
	dialTimeout    = 2 * time.Second
	requestTimeout = 10 * time.Second
)

// maxStatus is more than a thousand services need.
const maxStatus = 16 << 20

// New makes a client, which connects when it is used.
func New(c Config) *Client {
	c.URL = strings.TrimSuffix(cmp.Or(c.URL, "http://127.0.0.1:2822"), "/")
	c.UserFile = cmp.Or(c.UserFile, "/var/vcap/monit/monit.user")
	c.Group = cmp.Or(c.Group, "vcap")
	return &Client{
		config: c,
		token:  rand.Text(),
		seen:   map[string][]jobs.Process{},

		pidFiles: map[string]string{},
		http: &http.Client{
			Timeout: requestTimeout,
			Transport: &http.Transport{
				DialContext:       (&net.Dialer{Timeout: dialTimeout}).DialContext,
				DisableKeepAlives: true, // monit closes each connection
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func (c *Client) String() string {
	_, host, _ := strings.Cut(c.config.URL, "://")
	return "monit at " + host
}

// refusal is an answer that is no success.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("it answers %d %s: %s", r.status, http.StatusText(r.status), r.text)
}

// status asks for the status of all services. Monit closes a connection whose request
// does not come at once, which on a machine that is busy says nothing: it is asked
// again then.
func (c *Client) status(ctx context.Context) (*status, error) {
	var b []byte
	var err error
	for range 5 {
		b, err = c.request(ctx, http.MethodGet, "/_status2?format=xml", nil)
		if !dropped(err) {
			break
		}
	}
	if err != nil {
		return nil, c.unreachable(err)
	}
	s, err := parse(b)
	if err != nil {
		return nil, c.unreachable(err)
	}
	c.forgetPIDFiles(s.Incarnation)
	return s, nil
}

// dropped says that a connection was made, and closed without an answer.
func dropped(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF)
}

// act asks for an action on services, and says whether monit took it for all. What
// it did not take, because a service is busy or not there any more, the next status
// shows.
func (c *Client) act(ctx context.Context, action string, names []string) (bool, error) {
	_, err := c.request(ctx, http.MethodPost, "/_doaction", url.Values{"action": {action}, "service": names})
	if refused(err, http.StatusBadRequest, http.StatusNotFound) {
		return c.actEach(ctx, action, names)
	}
	return c.taken(err)
}

// actEach is for a monit that takes one service a request, or does not know one of them.
func (c *Client) actEach(ctx context.Context, action string, names []string) (bool, error) {
	all := true
	for _, name := range names {
		_, err := c.request(ctx, http.MethodPost, "/"+url.PathEscape(name), url.Values{"action": {action}})
		took, err := c.taken(err)
		if err != nil {
			return false, err
		}
		all = all && took
	}
	return all, nil
}

func (c *Client) taken(err error) (bool, error) {
	if refused(err, http.StatusServiceUnavailable, http.StatusNotFound, http.StatusBadRequest) {
		return false, nil
	}
	if err != nil {
		return false, c.unreachable(err)
	}
	return true, nil
}

func refused(err error, statuses ...int) bool {
	var r *refusal
	return errors.As(err, &r) && slices.Contains(statuses, r.status)
}

// request asks once, with the user that the file holds now.
func (c *Client) request(ctx context.Context, method, path string, form url.Values) ([]byte, error) {
	user, err := os.ReadFile(c.config.UserFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read monit's user: %w", err)
	}
	if form != nil {
		form.Set("securitytoken", c.token)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.config.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Cookie", "securitytoken="+c.token)
	}
	name, password, _ := strings.Cut(strings.TrimSpace(string(user)), ":")
	req.SetBasicAuth(name, password)
	return c.do(req)
}

func (c *Client) do(req *http.Request) ([]byte, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		return nil, fmt.Errorf("it does not accept the user in %q", c.config.UserFile)
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusFound:
		return nil, &refusal{resp.StatusCode, words(b)}
	}
	return b, err
}

// words is what an answer says, without its HTML, shortened.
func words(b []byte) string {
	var out bytes.Buffer
	inTag := false
	for _, r := range string(b[:min(len(b), 4096)]) {
		switch {
		case r == '<':
			inTag = true
			out.WriteByte(' ')
		case r == '>':
			inTag = false
		case !inTag:
			out.WriteRune(r)
		}
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	return text[:min(len(text), 200)]
}

// unreachable says that monit does not answer, and names the firewall where a dial
// was not even refused.
func (c *Client) unreachable(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" && op.Timeout() {
		err = fmt.Errorf("%w: a firewall may let only some processes reach monit's port: root, or those in the net_cls group %q", err, netclass.Monit)
	}
	return fmt.Errorf("cannot ask %s: %w: %w", c, jobs.ErrUnreachable, err)
}
