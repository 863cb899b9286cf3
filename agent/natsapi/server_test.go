package natsapi_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/natsapi"
)

func TestSilenceOnMethodsWithoutThePrefix(t *testing.T) {
	t.Parallel()
	d, bus := apitest.Start(t), apitest.StartBus(t)
	d.OnBus(t, bus)
	conn := apitest.Connect(t, bus, "director")
	for _, method := range []string{"info", "ping", "get_task", "", "quiesced", "Quiesced_info"} {
		if got := ask(t, conn, request(method, replyTo, "x"), 0); len(got) > 0 {
			t.Errorf("%q is answered %q", method, got)
		}
	}
	want := `{"exception":{"message":"unknown message quiesced_","kind":"unknown_method"}}`
	if diff := cmp.Diff([]string{want}, ask(t, conn, request("quiesced_", replyTo), 1)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestALongReplySubjectDoesNotCostTheConnection(t *testing.T) {
	t.Parallel()
	d, bus := apitest.Start(t), apitest.StartBus(t)
	client := d.OnBus(t, bus)
	conn := apitest.Connect(t, bus, "director")
	no(t, conn.Publish("agent."+apitest.AgentID, request("quiesced_info", replyTo+strings.Repeat("x", 5000))))
	_, err := client.Call(t.Context(), "info")
	no(t, err)
}

// boshAgent answers like a bosh-agent, at once and before the daemon.
func boshAgent(t *testing.T, bus *apitest.Bus) {
	t.Helper()
	conn := apitest.Connect(t, bus, "agent")
	_, err := conn.Subscribe("agent."+apitest.AgentID, func(m *nats.Msg) {
		refusal := fmt.Sprintf(`{"exception":{"message":"unknown message %s"}}`, field(m.Data, "method"))
		_ = conn.Publish(field(m.Data, "reply_to"), []byte(refusal))
	})
	no(t, err)
	no(t, conn.Flush())
}

func field(doc []byte, key string) string {
	_, rest, _ := strings.Cut(string(doc), `"`+key+`":"`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

func TestClientPassesOverBoshAgent(t *testing.T) {
	t.Parallel()
	d, bus := apitest.Start(t), apitest.StartBus(t)
	boshAgent(t, bus)
	client := d.OnBus(t, bus)
	client.SetWaits(20*time.Second, 3*time.Second)
	c := api.Client{Caller: client}

	_, err := c.Info(t.Context())
	no(t, err)
	_, err = client.Call(t.Context(), "ping")
	fails(t, err, api.KindUnknownMethod, "unknown message quiesced_ping")

	// get_task waits longer than a refusal is waited upon.
	client.SetWaits(20*time.Second, 100*time.Millisecond)
	d.Hold(t, "snapshot_disk")
	id, err := c.Take(t.Context(), agentRequest("run-1"))
	no(t, err)
	var releasing sync.WaitGroup
	releasing.Go(func() {
		time.Sleep(500 * time.Millisecond)
		d.Release(t, "snapshot_disk")
	})
	defer releasing.Wait()
	report, err := c.Report(t.Context(), id)
	no(t, err)
	if report.Outcome != "succeeded" {
		t.Errorf("the report is %+v", report)
	}
}

func TestClientWithoutADaemon(t *testing.T) {
	t.Parallel()
	bus := apitest.StartBus(t)
	conn := apitest.Connect(t, bus, "director")
	client := natsapi.NewClient(conn, apitest.BusConfig(bus), apitest.DirectorUUID)

	began := time.Now()
	_, err := client.Call(t.Context(), "info")
	fails(t, err, api.KindUnreachable, "no daemon answers on agent."+apitest.AgentID+": nats: no responders available")
	if took := time.Since(began); took > time.Second {
		t.Errorf("that nobody is there takes %s", took)
	}

	boshAgent(t, bus)
	began = time.Now()
	_, err = client.Call(t.Context(), "info")
	fails(t, err, api.KindUnreachable, "bosh-agent answered unknown message quiesced_info, and no daemon did")
	if took := time.Since(began); took < 2900*time.Millisecond || took > 5*time.Second {
		t.Errorf("that bosh-agent is alone takes %s", took)
	}
}

func TestClientWithADaemonThatIsMute(t *testing.T) {
	t.Parallel()
	bus := apitest.StartBus(t)
	mute := apitest.Connect(t, bus, "agent")
	_, err := mute.SubscribeSync("agent." + apitest.AgentID)
	no(t, err)
	no(t, mute.Flush())
	client := natsapi.NewClient(apitest.Connect(t, bus, "director"), apitest.BusConfig(bus), apitest.DirectorUUID)
	client.SetWaits(100*time.Millisecond, time.Millisecond)
	_, err = client.Call(t.Context(), "info")
	fails(t, err, api.KindUnreachable, "no daemon answers on agent."+apitest.AgentID)
}

func TestDaemonOutlivesTheBus(t *testing.T) {
	t.Parallel()
	d, bus := apitest.Start(t), apitest.NewBus(t)
	apitest.Background(t, natsapi.NewServer(d.Handler, apitest.BusConfig(bus), nil, slog.New(slog.DiscardHandler)).Serve)
	time.Sleep(silence) // the first attempt fails
	bus.Start(t)
	client := natsapi.NewClient(apitest.Connect(t, bus, "director"), apitest.BusConfig(bus), apitest.DirectorUUID)
	apitest.AwaitAnswer(t, client)

	d.Hold(t, "snapshot_disk")
	c := api.Client{Caller: client}
	id, err := c.Take(t.Context(), agentRequest("run-1"))
	no(t, err)
	d.AwaitCall(t, "snapshot_disk", 1)
	bus.Stop()
	time.Sleep(silence)
	bus.Start(t)
	apitest.AwaitAnswer(t, client)
	d.Release(t, "snapshot_disk")
	report, err := c.Report(t.Context(), id)
	no(t, err)
	if report.Outcome != "succeeded" {
		t.Errorf("the report is %+v", report)
	}
}

// A bus that turns the daemon away, as with a certificate that has just been
// replaced, is tried again for ever.
func TestDaemonOutlivesItsBeingTurnedAway(t *testing.T) {
	t.Parallel()
	d, bus := apitest.Start(t), apitest.StartBus(t)
	d.OnBus(t, bus)
	bus.Stop()
	bus.SetUsers(apitest.Users("another"))
	bus.Start(t)
	time.Sleep(3 * natsapi.FirstPause) // long enough for two attempts
	bus.Stop()
	bus.SetUsers(apitest.Users("test"))
	bus.Start(t)
	apitest.AwaitAnswer(t, natsapi.NewClient(apitest.Connect(t, bus, "director"), apitest.BusConfig(bus), apitest.DirectorUUID))
}

func TestAnswerLargerThanTheBusTakes(t *testing.T) {
	t.Parallel()
	bus := apitest.StartBus(t, func(o *server.Options) { o.MaxPayload = 1200 })
	d := apitest.Start(t)
	client := d.OnBus(t, bus)
	_, err := client.Call(t.Context(), "metrics")
	fails(t, err, api.KindFailed, "the answer to quiesced_metrics has ", " bytes, and the bus takes 1200")
	_, err = client.Call(t.Context(), "info", strings.Repeat("x", 1200))
	fails(t, err, api.KindInvalid, "cannot call info: the request has 1", "and the bus takes 1200")
	_, err = client.Call(t.Context(), "info")
	no(t, err)
}

func TestAFloodOfGetTaskKeepsNothingElseOut(t *testing.T) {
	t.Parallel()
	d, bus := apitest.Start(t), apitest.StartBus(t)
	c := api.Client{Caller: d.OnBus(t, bus)}
	d.Hold(t, "snapshot_disk")
	id, err := c.Take(t.Context(), agentRequest("run-1"))
	no(t, err)
	d.AwaitCall(t, "snapshot_disk", 1)

	conn := apitest.Connect(t, bus, "director")
	answers, err := conn.SubscribeSync("director.flood.>")
	no(t, err)
	const flood = 200
	for i := range flood {
		reply := fmt.Sprintf("director.flood.%s.%d", apitest.AgentID, i)
		no(t, conn.Publish("agent."+apitest.AgentID, request("quiesced_get_task", reply, id)))
	}
	no(t, conn.Flush())
	began := time.Now()
	_, err = c.Status(t.Context())
	no(t, err)
	no(t, c.Cancel(t.Context(), id))
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("status and cancel_task take %s", took)
	}
	if n, _, _ := answers.Pending(); n > 0 {
		t.Errorf("%d of get_task are answered before the end", n)
	}
	d.Release(t, "snapshot_disk")
	for i := range flood {
		m, err := answers.NextMsg(10 * time.Second)
		no(t, err)
		if !strings.Contains(string(m.Data), "snap-1") {
			t.Fatalf("answer %d is %s", i, m.Data)
		}
	}
}

func TestMoreOfOneMethodThanAreAnsweredAreBusy(t *testing.T) {
	t.Parallel()
	d, bus := apitest.Start(t), apitest.StartBus(t)
	client := d.OnBus(t, bus)
	d.Hold(t, "snapshot_disk")
	id, err := api.Client{Caller: client}.Take(t.Context(), agentRequest("run-1"))
	no(t, err)
	conn := apitest.Connect(t, bus, "director")
	answers, err := conn.SubscribeSync("director.flood.>")
	no(t, err)
	for range natsapi.MaxWaiting + 1 {
		no(t, conn.Publish("agent."+apitest.AgentID, request("quiesced_get_task", "director.flood."+apitest.AgentID+".x", id)))
	}
	m, err := answers.NextMsg(10 * time.Second)
	no(t, err)
	_, err = api.Decode(m.Data)
	fails(t, err, api.KindBusy, fmt.Sprintf("busy: %d such requests are under way", natsapi.MaxWaiting))
	_, err = client.Call(t.Context(), "status")
	no(t, err)
}

func TestServeEndsWhileGetTaskWaits(t *testing.T) {
	t.Parallel()
	d, bus := apitest.Start(t), apitest.StartBus(t)
	stop := apitest.Background(t, natsapi.NewServer(d.Handler, apitest.BusConfig(bus), nil, slog.New(slog.DiscardHandler)).Serve)
	conn := apitest.Connect(t, bus, "director")
	client := natsapi.NewClient(conn, apitest.BusConfig(bus), apitest.DirectorUUID)
	apitest.AwaitAnswer(t, client)
	d.Hold(t, "snapshot_disk")
	id, err := api.Client{Caller: client}.Take(t.Context(), agentRequest("run-1"))
	no(t, err)
	answers, err := conn.SubscribeSync(replyTo)
	no(t, err)
	no(t, conn.Publish("agent."+apitest.AgentID, request("quiesced_get_task", replyTo, id)))
	no(t, conn.Flush())
	time.Sleep(silence)

	began := time.Now()
	stop()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the server's end takes %s", took)
	}
	m, err := answers.NextMsg(5 * time.Second)
	no(t, err)
	if want := `{"value":{"agent_task_id":"run-1","state":"running"}}`; string(m.Data) != want {
		t.Errorf("the last answer is %s, want %s", m.Data, want)
	}
}

func TestServeRefusesFilesThatAreNotThere(t *testing.T) {
	t.Parallel()
	d := apitest.Start(t)
	for name, config := range map[string]natsapi.Config{
		"CA":          {URLs: []string{"nats://127.0.0.1:1"}, CA: "/nowhere/ca.pem"},
		"certificate": {URLs: []string{"nats://127.0.0.1:1"}, Cert: "/nowhere/cert.pem", Key: "/nowhere/key.pem"},
	} {
		err := natsapi.NewServer(d.Handler, config, nil, slog.New(slog.DiscardHandler)).Serve(t.Context())
		if err == nil || !strings.HasPrefix(err.Error(), "cannot use the bus: ") || !strings.Contains(err.Error(), "/nowhere/") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func agentRequest(id string) agent.Request { return agent.Request{ID: id} }

func ended(t *testing.T, d *apitest.Daemon, id string) bool {
	t.Helper()
	run, err := d.Agent.Find(id)
	no(t, err)
	_, ended := run.Report()
	return ended
}

// fails checks that an error is of a kind and says some things.
func fails(t *testing.T, err error, kind api.Kind, says ...string) {
	t.Helper()
	var x *api.Error
	if !errors.As(err, &x) || x.Kind != kind {
		t.Errorf("the error is %#v, want one of kind %q", err, kind)
		return
	}
	for _, part := range says {
		if !strings.Contains(x.Error(), part) {
			t.Errorf("the error is %q, without %q", x, part)
		}
	}
}
