package metrics_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/metrics"
)

// serve serves until the test's end or the function that it returns is called,
// which gives what Serve returned.
func serve(t testing.TB, m *metrics.Metrics, healthy func() error) (url string, stop func() error) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	server, err := metrics.NewServer(m, "", healthy, log)
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, l); close(ended) }()
	stop = func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(5 * time.Second):
			return errors.New("the server does not end")
		}
	}
	t.Cleanup(func() { must(t, stop()) })
	return "http://" + l.Addr().String(), stop
}

func well() error { return nil }

// answer is an HTTP response that was read.
type answer struct {
	status            int
	contentType, body string
}

func ask(t testing.TB, method, url, accept string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	must(t, err)
	request.Header.Set("Accept", accept)
	response, err := http.DefaultClient.Do(request)
	must(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	return answer{response.StatusCode, response.Header.Get("Content-Type"), string(body)}
}

func TestServerAnswers(t *testing.T) {
	sick := func() error { return errors.New(`not thawed: ["/store"]`) }
	for name, c := range map[string]struct {
		healthy      func() error
		method, path string
		status       int
		body         string
	}{
		"metrics":               {well, "GET", "/metrics", 200, "\nquiesced_runs_total{"},
		"metrics when not well": {sick, "GET", "/metrics", 200, "\nquiesced_runs_total{"},
		"metrics of itself":     {well, "GET", "/metrics", 200, "\npromhttp_metric_handler_requests_total{"},
		"health":                {well, "GET", "/healthz", 200, "ok\n"},
		"health when not well":  {sick, "GET", "/healthz", 503, `not thawed: ["/store"]` + "\n"},
		"the landing page":      {well, "GET", "/", 200, `href="/metrics"`},
		"an unknown path":       {well, "GET", "/debug/pprof/", 404, "404"},
		"below a known path":    {well, "GET", "/metrics/x", 404, "404"},
		"a method for nothing":  {well, "POST", "/metrics", 404, "404"},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := serve(t, filled(t), c.healthy)
			got := ask(t, c.method, url+c.path, "")
			if got.status != c.status || !strings.Contains(got.body, c.body) {
				t.Errorf("got %d:\n%s\nwant %d: %s", got.status, got.body, c.status, c.body)
			}
		})
	}
}

func TestServerSpeaksTheFormatThatIsAskedFor(t *testing.T) {
	url, _ := serve(t, filled(t), well)
	for accept, want := range map[string]string{
		"": "text/plain; version=0.0.4",
		"application/openmetrics-text;version=1.0.0":                                                 "text/plain; version=0.0.4",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited": "application/vnd.google.protobuf",
	} {
		t.Run("accept "+accept, func(t *testing.T) {
			got := ask(t, "GET", url+"/metrics", accept)
			if got.status != http.StatusOK || !strings.HasPrefix(got.contentType, want) {
				t.Errorf("got %d, %s, want %s", got.status, got.contentType, want)
			}
		})
	}
}

func TestServerEndsWithItsContext(t *testing.T) {
	url, stop := serve(t, metrics.New(), well)
	ask(t, "GET", url+"/healthz", "")
	if err := stop(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")); err == nil {
		c.Close()
		t.Error("it still listens")
	}
}

func TestServerWhoseContextHasEndedEnds(t *testing.T) {
	server, err := metrics.NewServer(metrics.New(), "", well, slog.New(slog.DiscardHandler))
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := server.Serve(ctx, l); err != nil {
		t.Error(err)
	}
}

func TestServerThatCannotServeSaysWhere(t *testing.T) {
	for name, c := range map[string]struct {
		webConfig string
		closed    bool
		want      string
	}{
		"its listener is closed":           {"", true, "use of closed network connection"},
		"its web configuration is missing": {"/nonexistent/web.yml", false, "/nonexistent/web.yml"},
	} {
		t.Run(name, func(t *testing.T) {
			server, err := metrics.NewServer(metrics.New(), c.webConfig, well, slog.New(slog.DiscardHandler))
			must(t, err)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			defer l.Close()
			if c.closed {
				l.Close()
			}
			err = server.Serve(t.Context(), l)
			prefix := "cannot serve metrics on " + l.Addr().String() + ": "
			if err == nil || !strings.HasPrefix(err.Error(), prefix) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}
