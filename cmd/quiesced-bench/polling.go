package main

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/quiesced/quiesced/quiesce/monit/monittest"
)

// poll is how long bosh-agent waits between two looks at monit's status.
const poll = 500 * time.Millisecond

// polling stops and starts services as bosh-agent does, by polling.
type polling struct {
	monit   *monittest.Monit
	names   []string
	stopped string // the file that says that they are stopped
}

// checked is what a service is by monit's word.
type checked struct {
	Name    string `xml:"name,attr"`
	Type    int    `xml:"type"`
	Status  int    `xml:"status"`
	Monitor int    `xml:"monitor"`
	Pending int    `xml:"pendingaction"`
}

func (c checked) idle() bool    { return c.Pending == 0 }
func (c checked) stopped() bool { return c.Pending == 0 && c.Monitor == 0 }
func (c checked) running() bool { return c.Pending == 0 && c.Monitor == 1 && c.Status == 0 }

// around does something while the services are stopped. bosh-agent would have them
// unmonitored first; monit 5.33 runs no stop program of a service that it does not
// monitor.
func (p polling) around(ctx context.Context, do func() error) error {
	if err := p.until(ctx, checked.idle); err != nil {
		return err
	}
	if err := p.act(ctx, "_doaction", url.Values{"action": {"stop"}, "service": p.names}); err != nil {
		return err
	}
	if err := os.WriteFile(p.stopped, nil, 0o600); err != nil {
		return err
	}
	if err := p.until(ctx, checked.stopped); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	for _, name := range p.names {
		if err := p.act(ctx, name, url.Values{"action": {"start"}}); err != nil {
			return err
		}
	}
	if err := p.until(ctx, checked.running); err != nil {
		return err
	}
	return os.Remove(p.stopped)
}

// until polls until all services are so.
func (p polling) until(ctx context.Context, are func(checked) bool) error {
	for {
		all, err := p.status(ctx)
		if err != nil {
			return err
		}
		n := 0
		for _, c := range all {
			if are(c) {
				n++
			}
		}
		if n == len(p.names) {
			return nil
		}
		select {
		case <-time.After(poll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p polling) status(ctx context.Context) ([]checked, error) {
	b, err := p.request(ctx, http.MethodGet, "_status2?format=xml", nil)
	if err != nil {
		return nil, err
	}
	var s struct {
		Services []checked `xml:"services>service"`
	}
	d := xml.NewDecoder(strings.NewReader(b))
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	if err := d.Decode(&s); err != nil {
		return nil, err
	}
	var processes []checked
	for _, c := range s.Services {
		if c.Type == 3 {
			processes = append(processes, c)
		}
	}
	return processes, nil
}

func (p polling) act(ctx context.Context, path string, form url.Values) error {
	form.Set("securitytoken", "any")
	_, err := p.request(ctx, http.MethodPost, path, form)
	return err
}

func (p polling) request(ctx context.Context, method, path string, form url.Values) (string, error) {
	user, err := os.ReadFile(p.monit.UserFile)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, method, p.monit.URL+"/"+path, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	name, password, _ := strings.Cut(strings.TrimSpace(string(user)), ":")
	req.SetBasicAuth(name, password)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Cookie", "securitytoken=any")
	}
	resp, err := http.DefaultTransport.RoundTrip(req) // a redirect is success
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusFound {
		err = fmt.Errorf("monit answers %s to %s /%s: %s", resp.Status, method, path, b)
	}
	return string(b), err
}

// method is the driver; while the services are stopped: what ours does,
// by util-linux's program.
func (p polling) method(ctx context.Context, mount string) method {
	return method{"polling", func() (h held, err error) {
		err = p.around(ctx, func() error {
			return armed(mount, func() error {
				h, err = fsfreeze(mount).do()
				return err
			})
		})
		return h, err
	}}
}

func stoppedFile(dir string) string { return filepath.Join(dir, "stopped") }
