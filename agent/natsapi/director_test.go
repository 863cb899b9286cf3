package natsapi_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/natsapi"
)

// both are the servers that a director's bus runs on in these tests.
var both = map[string]bool{"in process": false, "Debian's": true}

// goldenAgent answers on the VM's subject as a real bosh-agent does, and at once.
func goldenAgent(t *testing.T, bus *apitest.DirectorBus) {
	t.Helper()
	known := map[string]string{}
	for _, g := range golden(t) {
		if method := field([]byte(g.Request), "method"); len(g.Replies) == 1 && !strings.Contains(g.Replies[0], "unknown message") {
			known[method] = g.Replies[0]
		}
	}
	conn := bus.Connect(t, apitest.AgentCN)
	_, err := conn.Subscribe("agent."+apitest.AgentID, func(m *nats.Msg) {
		answer, ok := known[field(m.Data, "method")]
		if !ok {
			answer = fmt.Sprintf(`{"exception":{"message":"unknown message %s"}}`, field(m.Data, "method"))
		}
		_ = conn.Publish(field(m.Data, "reply_to"), []byte(answer))
	})
	no(t, err)
	no(t, conn.Flush())
}

// calls are what the daemon is asked again and again, and what it must say.
var calls = []struct{ method, argument, want string }{
	{"info", "", `"agent_id":"` + apitest.AgentID + `"`},
	{"status", "", `"version":"v1-test"`},
	{"snapshots", "", `[]`},
	{"get_task", "nope", "Action Failed quiesced_get_task: Task with id nope could not be found"},
	{"cancel_task", "nope", "Action Failed quiesced_cancel_task: Task with id nope could not be found"},
	{"ping", "", "unknown message quiesced_ping"},
	{"run_script", "", "unknown message quiesced_run_script"},
}

func TestAThousandCallsBesideBoshAgentAreAnsweredByTheDaemon(t *testing.T) {
	t.Parallel()
	for name, debian := range both {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bus := apitest.StartDirectorBus(t, debian)
			client := apitest.Start(t).OnDirectorBus(t, bus)
			goldenAgent(t, bus)
			const callers, each = 10, 50
			var calling sync.WaitGroup
			for caller := range callers {
				calling.Go(func() {
					for i := range each {
						c := calls[(caller+i)%len(calls)]
						var arguments []any
						if c.argument != "" {
							arguments = []any{c.argument}
						}
						value, err := client.Call(t.Context(), c.method, arguments...)
						if got := fmt.Sprint(string(value), err); !strings.Contains(got, c.want) {
							t.Errorf("%s is answered %s", c.method, got)
						}
						if want := api.KindUnknownMethod; strings.HasPrefix(c.want, "unknown") && api.KindOf(err) != want {
							t.Errorf("%s is refused by bosh-agent: %v", c.method, err)
						}
					}
				})
			}
			calling.Wait()
		})
	}
}

func TestWhatIsAskedOfBoshAgentIsAnsweredByItAlone(t *testing.T) {
	t.Parallel()
	bus := apitest.StartDirectorBus(t, false)
	var log bytes.Buffer
	d := apitest.Start(t)
	stop := apitest.Background(t, natsapi.NewServer(d.Handler, bus.Config(t, bus.Authority.Issue(t, apitest.AgentCN)), nil,
		slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))).Serve)
	apitest.AwaitAnswer(t, bus.Client(t))
	goldenAgent(t, bus)
	conn := bus.Connect(t, apitest.DirectorCN)
	answers, err := conn.SubscribeSync("director.>")
	no(t, err)
	asked := 0
	for _, g := range golden(t) {
		if method := field([]byte(g.Request), "method"); method != "" && len(g.Replies) == 1 && len(g.Request) < 4000 {
			no(t, conn.Publish("agent."+apitest.AgentID, request(method, fmt.Sprintf("director.probe-uuid.%s.%d", apitest.AgentID, asked), "s3cr3t")))
			asked++
		}
	}
	no(t, conn.Flush())
	for range asked {
		_, err := answers.NextMsg(10 * time.Second)
		no(t, err)
	}
	if m, err := answers.NextMsg(silence); err == nil {
		t.Errorf("%d requests have one more answer: %s", asked, m.Data)
	}
	stop()
	if asked < 15 || strings.Contains(log.String(), "s3cr3t") || strings.Contains(log.String(), "run_script") {
		t.Errorf("of %d requests to bosh-agent the log has\n%s", asked, &log)
	}
}

func TestAVMsCertificateIsGoodForNothingElse(t *testing.T) {
	t.Parallel()
	for name, debian := range both {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bus := apitest.StartDirectorBus(t, debian)
			conn, violations := watched(t, bus, apitest.AgentCN)
			for _, subject := range []string{
				"agent." + apitest.OtherAgentID, "agent.*", "director.>", "hm.agent.alert." + apitest.AgentID, "_INBOX.x", ">",
			} {
				_, err := conn.SubscribeSync(subject)
				no(t, err)
				refused(t, violations, "subscribe to "+subject)
			}
			for _, subject := range []string{
				"agent." + apitest.AgentID, "agent." + apitest.OtherAgentID, "hm.director.alert", "hm.agent.alert." + apitest.OtherAgentID,
				"director.uuid." + apitest.OtherAgentID + ".req", "director.uuid." + apitest.AgentID + ".req.five", "director.uuid." + apitest.AgentID,
			} {
				no(t, conn.Publish(subject, []byte("{}")))
				refused(t, violations, "publish to "+subject)
			}
			for _, subject := range []string{"director.uuid." + apitest.AgentID + ".req", "hm.agent.alert." + apitest.AgentID} {
				no(t, conn.Publish(subject, []byte("{}")))
				no(t, conn.Flush())
				select {
				case err := <-violations:
					t.Errorf("publish to %s: %v", subject, err)
				default:
				}
			}
		})
	}
}

// watched joins a bus, and hands on what the bus refuses.
func watched(t *testing.T, bus *apitest.DirectorBus, cn string) (*nats.Conn, <-chan error) {
	t.Helper()
	conn := bus.Connect(t, cn)
	violations := make(chan error, 100)
	conn.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { violations <- err })
	return conn, violations
}

func refused(t *testing.T, violations <-chan error, what string) {
	t.Helper()
	select {
	case err := <-violations:
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s: %v", what, err)
		}
	case <-time.After(10 * time.Second):
		t.Errorf("one may %s", what)
	}
}

// A daemon that has another VM's certificate is deaf, and would not know it: the bus
// refuses the subscription and nothing else.
func TestAnotherVMsCertificateIsNotServedWith(t *testing.T) {
	t.Parallel()
	bus := apitest.StartDirectorBus(t, false)
	config := bus.Config(t, bus.Authority.Issue(t, apitest.OtherAgentCN))
	log := logFile(t)
	apitest.Background(t, natsapi.NewServer(apitest.Start(t).Handler, config, nil, log.logger()).Serve)
	apitest.Eventually(t, "the refusal is logged", func() bool {
		return strings.Contains(log.text(t), `cannot subscribe to \"agent.`+apitest.AgentID)
	})
	replace(t, config, bus.Authority.Issue(t, apitest.AgentCN))
	apitest.AwaitAnswer(t, bus.Client(t))
}

func TestACertificateThatWasReplacedOnDiskIsUsedNext(t *testing.T) {
	t.Parallel()
	bus := apitest.StartDirectorBus(t, false)
	config := bus.Config(t, bus.Authority.Issue(t, apitest.AgentCN))
	apitest.Background(t, natsapi.NewServer(apitest.Start(t).Handler, config, nil, slog.New(slog.DiscardHandler)).Serve)
	apitest.AwaitAnswer(t, bus.Client(t))

	const renewed = "renewed.agent.bosh-internal"
	replace(t, config, bus.Authority.Issue(t, renewed))
	apitest.AwaitAnswer(t, bus.Client(t)) // the connection is still there
	bus.Stop()
	bus.Configure(t, bus.Authority.Issue(t, apitest.ServerCN), renewed)
	bus.Start(t)
	apitest.AwaitAnswer(t, bus.Client(t))
}

// replace writes another certificate and key where the ones in use lie.
func replace(t *testing.T, c natsapi.Config, p apitest.Pair) {
	t.Helper()
	no(t, os.WriteFile(c.Cert, p.Cert, 0o600))
	no(t, os.WriteFile(c.Key, p.Key, 0o600))
}

func TestTheBusMovesAndIsFound(t *testing.T) {
	t.Parallel()
	old, moved := apitest.StartDirectorBus(t, false), apitest.StartDirectorBus(t, false)
	var mu sync.Mutex
	bus, asked := old, 0
	source := func() (natsapi.Access, error) {
		mu.Lock()
		defer mu.Unlock()
		if asked++; asked == 1 {
			return natsapi.Access{}, errors.New("the file is being written")
		}
		p := bus.Authority.Issue(t, apitest.AgentCN)
		return natsapi.Access{URLs: []string{"nats://127.0.0.1:1", bus.URL}, CA: bus.Authority.CA, Cert: p.Cert, Key: p.Key, BOSH: true}, nil
	}
	config := old.Config(t, apitest.Pair{})
	config.Source = source
	apitest.Background(t, natsapi.NewServer(apitest.Start(t).Handler, config, nil, slog.New(slog.DiscardHandler)).Serve)
	apitest.AwaitAnswer(t, old.Client(t))
	mu.Lock()
	bus = moved
	mu.Unlock()
	old.Stop()
	apitest.AwaitAnswer(t, moved.Client(t))
}

func TestAClientsConnectionIsMadeAgain(t *testing.T) {
	t.Parallel()
	bus := apitest.StartDirectorBus(t, false)
	client := apitest.Start(t).OnDirectorBus(t, bus)
	bus.Stop()
	_, err := client.Call(t.Context(), "info")
	fails(t, err, api.KindUnreachable, "no daemon answers on agent."+apitest.AgentID)
	bus.Start(t)
	apitest.AwaitAnswer(t, client)
}

// file is a log that is read while it is written.
type file struct{ *os.File }

func logFile(t *testing.T) file {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "log")
	no(t, err)
	t.Cleanup(func() { f.Close() })
	return file{f}
}

func (f file) logger() *slog.Logger { return slog.New(slog.NewTextHandler(f, nil)) }

func (f file) text(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(f.Name())
	no(t, err)
	return string(text)
}

func TestAnAnswerThatIsTooLongLosesItsMiddle(t *testing.T) {
	for _, test := range []struct {
		name, message string
		limit         int
	}{
		{"plain text", "first " + strings.Repeat("x", 5000) + " last", 400},
		{"text that JSON writes longer", "first " + strings.Repeat("<", 5000) + " last", 400},
		{"text of several bytes a letter", "first " + strings.Repeat("é", 5000) + " last", 401},
	} {
		t.Run(test.name, func(t *testing.T) {
			doc := natsapi.Shortened("x", &api.Error{Kind: api.KindFailed, Message: test.message}, test.limit)
			_, err := api.Decode(doc)
			fails(t, err, api.KindFailed, "first ", "\n...[truncated]...\n", " last")
			if len(doc) > test.limit || len(doc) < test.limit-12 {
				t.Errorf("it has %d bytes, where %d may be", len(doc), test.limit)
			}
		})
	}
	_, err := api.Decode(natsapi.Shortened("x", &api.Error{Kind: api.KindFailed, Message: "short", Deleted: []string{"snap-1"}}, 400))
	if diff := cmp.Diff(&api.Error{Kind: api.KindFailed, Message: "short", Deleted: []string{"snap-1"}}, err); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
