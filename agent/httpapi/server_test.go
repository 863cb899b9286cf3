package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/httpapi"
)

// raw is a client that leaves a request as it is.
func raw(t *testing.T, network, address string) func(method, path, body string) (int, string) {
	t.Helper()
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial(network, address)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return func(method, path, body string) (int, string) {
		t.Helper()
		request, err := http.NewRequest(method, "http://quiesced"+path, strings.NewReader(body))
		no(t, err)
		response, err := transport.RoundTrip(request)
		no(t, err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		no(t, err)
		return response.StatusCode, string(text)
	}
}

func TestStatusesTellTheKind(t *testing.T) {
	d := apitest.Start(t)
	socket := serve(t, d, httpapi.Access{})
	do := raw(t, "unix", socket)
	c := api.Client{Caller: httpapi.NewClient(socket)}
	d.Hold(t, "snapshot_disk")
	id, err := c.Take(t.Context(), agent.Request{ID: "run-1"})
	no(t, err)
	d.AwaitCall(t, "snapshot_disk", 1)

	for _, test := range []struct {
		name, method, path, body string
		status                   int
		says                     string
	}{
		{"a value", "POST", "/v1/info", "", 200, `{"value":{"version":"v1-test"`},
		{"no arguments", "POST", "/v1/info", "{}", 200, `{"value":{`},
		{"arguments that are null", "POST", "/v1/info", `{"arguments":null}`, 200, `{"value":{`},
		{"a task", "POST", "/v1/take_snapshot", `{"arguments":[{"id":"run-1"}]}`, 200, `{"value":{"agent_task_id":"run-1","state":"running"}}`},
		{"no JSON", "POST", "/v1/info", "arguments", 400, "cannot read the call: "},
		{"a body that goes on", "POST", "/v1/info", "{} {}", 400, "cannot read the call: "},
		{"a body that is no object", "POST", "/v1/info", "[]", 400, "cannot read the call: "},
		{"arguments that are no array", "POST", "/v1/get_task", `{"arguments":{}}`, 400, "Action Failed get_task: Extracting json arguments: "},
		{"too few arguments", "POST", "/v1/get_task", "", 400, "expected 1, got 0"},
		{"a task that is not known", "POST", "/v1/get_task", `{"arguments":["nope"]}`, 400, "Task with id nope could not be found"},
		{"a method that is not known", "POST", "/v1/ping", "", 404, `{"exception":{"message":"unknown message ping","kind":"unknown_method"}}`},
		{"no method", "POST", "/v1/", "", 404, `"kind":"unknown_method"`},
		{"another verb", "GET", "/v1/info", "", 405, ""},
		{"another path", "POST", "/v2/info", "", 404, ""},
		{"busy", "POST", "/v1/take_snapshot", "", 409, `"kind":"busy"`},
		{"refused", "POST", "/v1/take_snapshot", `{"arguments":[{"level":"deep"}]}`, 422, `"kind":"refused"`},
		{"a body of more than a megabyte", "POST", "/v1/info", strings.Repeat(" ", httpapi.MaxBody+1), 400, "request body too large"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, text := do(test.method, test.path, test.body)
			if status != test.status || !strings.Contains(text, test.says) {
				t.Errorf("%d %s; want %d %s", status, text, test.status, test.says)
			}
		})
	}

	d.Answer(t, "snapshot_disk", `{"result":null,"error":{"type":"Bosh::Clouds::CloudError","message":"no quota left","ok_to_retry":false},"log":""}`)
	d.Release(t, "snapshot_disk")
	if status, text := do("POST", "/v1/get_task", `{"arguments":["`+id+`"]}`); status != 500 || !strings.Contains(text, `"kind":"failed"`) {
		t.Errorf("a failed run is %d %s", status, text)
	}
	if status, text := do("POST", "/v1/delete_snapshot", `{"arguments":["snap-9"]}`); status != 200 {
		t.Errorf("a deletion begins with %d %s", status, text)
	} else {
		var task struct{ Value api.Task }
		no(t, json.Unmarshal([]byte(text), &task))
		status, text := do("POST", "/v1/get_task", `{"arguments":["`+task.Value.ID+`"]}`)
		if status != 404 || !strings.Contains(text, `"kind":"not_found"`) {
			t.Errorf("an unknown snapshot is %d %s", status, text)
		}
	}
}

func TestAPeerThatTheKernelDoesNotNameIsForbidden(t *testing.T) {
	d := apitest.Start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	no(t, err)
	apitest.Background(t, func(ctx context.Context) error {
		return httpapi.NewServer(d.Handler, httpapi.Access{}, slog.New(slog.DiscardHandler)).Serve(ctx, l)
	})
	status, text := raw(t, "tcp", l.Addr().String())("POST", "/v1/info", "")
	if status != 403 || !strings.Contains(text, "of whom the kernel does not say who it is may not call info") {
		t.Errorf("%d %s", status, text)
	}
}

func TestServeEndsWhileGetTaskWaits(t *testing.T) {
	d := apitest.Start(t)
	socket := filepath.Join(t.TempDir(), "s")
	l, err := httpapi.Listen(socket, httpapi.Access{})
	no(t, err)
	stop := apitest.Background(t, func(ctx context.Context) error {
		return httpapi.NewServer(d.Handler, httpapi.Access{}, slog.New(slog.DiscardHandler)).Serve(ctx, l)
	})
	c := api.Client{Caller: httpapi.NewClient(socket)}
	d.Hold(t, "snapshot_disk")
	id, err := c.Take(t.Context(), agent.Request{ID: "run-1"})
	no(t, err)
	silent, err := net.Dial("unix", socket) // and somebody who connects and says nothing
	no(t, err)
	defer silent.Close()
	answers := make(chan string, 1)
	go func() {
		value, err := c.Caller.Call(t.Context(), "get_task", id)
		if err != nil {
			value = []byte(err.Error())
		}
		answers <- string(value)
	}()
	time.Sleep(100 * time.Millisecond)

	began := time.Now()
	stop()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the server's end takes %s", took)
	}
	if got, want := <-answers, `{"agent_task_id":"run-1","state":"running"}`; got != want {
		t.Errorf("the last answer is %s, want %s", got, want)
	}
	_, err = c.Info(t.Context())
	if api.KindOf(err) != api.KindUnreachable || !strings.Contains(err.Error(), "no daemon answers on "+socket) {
		t.Errorf("the daemon that is gone: %v", err)
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	d := apitest.Start(t)
	socket := serve(t, d, httpapi.Access{})
	c := api.Client{Caller: httpapi.NewClient(socket)}
	d.Hold(t, "snapshot_disk")
	id, err := c.Take(t.Context(), agent.Request{})
	no(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer time.AfterFunc(100*time.Millisecond, func() { cancel(io.ErrClosedPipe) }).Stop()
	if _, err := c.Report(ctx, id); err != io.ErrClosedPipe { //nolint:errorlint // the very cause
		t.Errorf("the error is %v", err)
	}
}

func TestServeEndsWhenItsListenerFails(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	no(t, err)
	no(t, l.Close())
	err = httpapi.NewServer(&api.Handler{}, httpapi.Access{}, slog.New(slog.DiscardHandler)).Serve(t.Context(), l)
	says(t, err, "cannot serve on ")
}

func FuzzReadArguments(f *testing.F) {
	for _, body := range []string{
		"", "{}", `{"arguments":[]}`, `{"arguments":["x",{"y":[1e9,null]}]}`, `{"arguments":null}`, `{"ARGUMENTS":{}}`,
		`{"arguments":[1],"arguments":[2]}`, "[]", "null", `{"arguments":[`, "{} {}", "\ufeff{}", `{"arguments":"\ud800"}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		request := httptest.NewRequest(http.MethodPost, "/v1/info", bytes.NewReader(body))
		arguments, err := httpapi.ReadArguments(httptest.NewRecorder(), request)
		if err != nil {
			return
		}
		if len(arguments) > 0 && !json.Valid(arguments) {
			t.Errorf("the arguments are %q", arguments)
		}
	})
}
