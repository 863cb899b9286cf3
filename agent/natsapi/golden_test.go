package natsapi_test

import (
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/natsapi"
)

// exchange is a request to a real bosh-agent, with its replies.
type exchange struct {
	Name    string   `json:"name"`
	Request string   `json:"request"`
	Replies []string `json:"replies"`
}

func golden(t testing.TB) []exchange {
	t.Helper()
	text, err := os.ReadFile("testdata/agent_golden.json")
	no(t, err)
	var all []exchange
	no(t, json.Unmarshal(text, &all))
	return all
}

// goldenTask is the task of the golden file. Ours is a run under that id.
const goldenTask = "75da28f7-91bf-4f19-4cb3-651f513cd24c"

// ours makes a request for bosh-agent one for the daemon: of what it does not
// know it has the like.
func ours(request string) string {
	return strings.NewReplacer(
		`"method":"run_script","arguments":["pre-stop",{"env":{"BOSH_VM_NEXT_STATE":"keep","BOSH_INSTANCE_NEXT_STATE":"keep","BOSH_DEPLOYMENT_NEXT_STATE":"keep","SLEEP_A":"2"}}]`,
		`"method":"take_snapshot","arguments":[{"id":"`+goldenTask+`"}]`,
		`"ping"`, `"status"`,
	).Replace(request)
}

// With no prefix, on a subject of its own, the daemon answers as bosh-agent
// does wherever both know the occasion.
func TestRepliesAreThoseOfBoshAgent(t *testing.T) {
	t.Parallel()
	d, bus := apitest.Start(t), apitest.StartBus(t)
	d.Handler.Wait = 200 * time.Millisecond
	d.Hold(t, "snapshot_disk")
	config := apitest.BusConfig(bus)
	config.Prefix = ""
	apitest.Background(t, natsapi.NewServer(d.Handler, config, nil, slog.New(slog.DiscardHandler)).Serve)
	conn := apitest.Connect(t, bus, "director")
	apitest.AwaitAnswer(t, natsapi.NewClient(conn, config, apitest.DirectorUUID))

	for _, g := range golden(t) {
		t.Run(g.Name, func(t *testing.T) {
			if g.Name == "cancel_task of finished task" {
				d.Release(t, "snapshot_disk")
				apitest.Eventually(t, "the run ends", func() bool { return ended(t, d, goldenTask) })
			}
			replies := ask(t, conn, []byte(ours(g.Request)), len(g.Replies))
			switch {
			case g.Name == "cancel_task of run_script (running)":
				g.Replies = []string{`{"value":"canceled"}`} // wanted: a run, other than a script, can be
			case strings.Contains(g.Request, `"ping"`) && len(g.Replies) == 1 && g.Replies[0] == `{"value":"pong"}`:
				answered(t, replies)
				return
			case len(g.Replies) == 1 && strings.Contains(g.Replies[0], "unknown message"):
				// Wanted: our refusal can be told from bosh-agent's.
				g.Replies[0] = strings.Replace(g.Replies[0], `"}}`, `","kind":"unknown_method"}}`, 1)
			}
			if diff := cmp.Diff(append([]string{}, g.Replies...), replies); diff != "" {
				t.Errorf("-bosh-agent +daemon:\n%s", diff)
			}
		})
	}
}

// A deletion cannot be cancelled, as most of bosh-agent's tasks cannot.
func TestCancelOfADeletionIsRefusedAsByBoshAgent(t *testing.T) {
	t.Parallel()
	d, bus := apitest.Start(t), apitest.StartBus(t)
	client := d.OnBus(t, bus)
	id, err := api.Client{Caller: client}.Take(t.Context(), agentRequest("run-1"))
	no(t, err)
	apitest.Eventually(t, "the run ends", func() bool { return ended(t, d, id) })
	d.Hold(t, "delete_snapshot")
	value, err := client.Call(t.Context(), "delete_snapshot", "snap-1")
	no(t, err)
	var task api.Task
	no(t, json.Unmarshal(value, &task))
	d.AwaitCall(t, "delete_snapshot", 1)

	got := ask(t, apitest.Connect(t, bus, "director"), request("quiesced_cancel_task", replyTo, task.ID), 1)
	want := `{"exception":{"message":"Action Failed quiesced_cancel_task: not supported"}}`
	if diff := cmp.Diff([]string{want}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// silence is how long a test waits for what should not come.
const silence = 100 * time.Millisecond

// ask sends a request and returns the replies, with all that comes too many.
func ask(t *testing.T, conn *nats.Conn, request []byte, want int) []string {
	t.Helper()
	answers, err := conn.SubscribeSync("director.>")
	no(t, err)
	defer answers.Unsubscribe()
	no(t, conn.Publish("agent."+apitest.AgentID, request))
	replies := []string{}
	for {
		wait := silence
		if len(replies) < want {
			wait = 10 * time.Second
		}
		m, err := answers.NextMsg(wait)
		if err != nil {
			return replies
		}
		replies = append(replies, string(m.Data))
	}
}

func answered(t *testing.T, replies []string) {
	t.Helper()
	if len(replies) != 1 || !strings.HasPrefix(replies[0], `{"value":{`) {
		t.Errorf("the answer is %q", replies)
	}
}

func request(method, replyTo string, arguments ...any) []byte {
	doc, err := json.Marshal(map[string]any{"protocol": 3, "method": method, "arguments": arguments, "reply_to": replyTo})
	if err != nil {
		panic(err)
	}
	return doc
}

func no(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
