package api_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/wire"
)

// transports are what the suite is run over. TCP has the socket's server, so what takes
// seconds is not done there again.
var transports = []struct {
	name    string
	freezes bool
	serve   func(*testing.T, *apitest.Daemon) api.Caller
}{
	{"unix socket", true, func(t *testing.T, d *apitest.Daemon) api.Caller { return d.OnSocket(t) }},
	{"TCP", false, func(t *testing.T, d *apitest.Daemon) api.Caller { return d.OnTCP(t) }},
	{"NATS", true, func(t *testing.T, d *apitest.Daemon) api.Caller { return d.OnBus(t, apitest.StartBus(t)) }},
	{"a director's NATS", false, func(t *testing.T, d *apitest.Daemon) api.Caller {
		return d.OnDirectorBus(t, apitest.StartDirectorBus(t, false))
	}},
	{"a director's NATS of Debian", true, func(t *testing.T, d *apitest.Daemon) api.Caller {
		return d.OnDirectorBus(t, apitest.StartDirectorBus(t, true))
	}},
}

// conformance is the suite. Each test gets a daemon of its own.

var conformance = []struct {
	name   string
	change func(*agent.Settings)
	test   func(*testing.T, *apitest.Daemon, api.Client)
}{
	{"info says who answers", nil, testInfo},
	{"status of an idle daemon", nil, testStatusIdle},
	{"status of a busy daemon has its phase", nil, testStatusBusy},
	{"a run ends in a report with CIDs and samples", nil, testTake},
	{"get_task answers the same again", nil, testGetTaskAgain},
	{"get_task waits for the end", nil, testGetTaskWaits},
	{"get_task says running when the end is far", nil, testGetTaskRunning},
	{"the same id joins the run and gets its report", nil, testSameID},
	{"an id is refused for another request", nil, testOtherRequest},
	{"a second request is busy and names the run", nil, testBusy},
	{"a request that waits is queued", nil, testWait},
	{"a queued request can be cancelled", nil, testCancelQueued},
	{"a run that is cancelled when nothing is frozen keeps its CID", nil, testCancelUnfrozen},
	{"a run that has ended can be cancelled", nil, testCancelEnded},
	{"a task that is not known", nil, testUnknownTask},
	{"snapshots are disabled", func(s *agent.Settings) { s.Enabled = false }, testDisabled},
	{"snapshots have the director's keys and ours", nil, testSnapshotKeys},
	{"a snapshot is deleted", nil, testDelete},
	{"an unknown snapshot is named", nil, testDeleteUnknown},
	{"a deletion that the CPI refuses keeps the entry", nil, testDeleteFails},
	{"a deletion cannot be cancelled until it has ended", nil, testCancelDelete},
	{"a snapshot that is gone is dropped", nil, testDeleteGone},
	{"snapshots are deleted, a part or all of them", nil, testDeleteAll},
	{"retention is planned and applied", aged, testRetention},
	{"retention without a policy does nothing", nil, testRetentionOfNothing},
	{"snapshots are selected and sorted", nil, testSelect},
	{"the catalogue is compared with the CPI", nil, testReconcile},
	{"a method that is not known", nil, testUnknownMethod},
	{"requests that are refused", nil, testRefused},
	{"arguments that are wrong", nil, testWrongArguments},
	{"arguments of a megabyte", nil, testLargeArguments},
	{"runs are listed, newest first", nil, testRuns},
	{"metrics are Prometheus text", nil, testMetrics},
	{"a failed run has its report", nil, testFailed},
	{"a CPI that talks nonsense leaves an unresolved snapshot", nil, testGarbage},
	{"each request is told to the audit, without its arguments", nil, testAudit},
	{"thirty-two callers at once", nil, testConcurrent},
	{"holds that are refused", nil, testHoldsRefused},
	{"a hold where snapshots are disabled", func(s *agent.Settings) { s.Enabled = false }, testHoldDisabled},
}

func TestConformance(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport.name, func(t *testing.T) {
			t.Parallel()
			if transport.freezes {
				freezing(t, transport.serve)
			}
			for _, c := range conformance {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					change := c.change
					if change == nil {
						change = func(*agent.Settings) {}
					}
					d := apitest.Start(t, change)
					c.test(t, d, api.Client{Caller: transport.serve(t, d)})
				})
			}
		})
	}
}

// freezing is the part of the suite in which disks are really frozen.
func freezing(t *testing.T, serve func(*testing.T, *apitest.Daemon) api.Caller) {
	t.Run("a run that is cancelled while frozen keeps its CID", func(t *testing.T) {
		d := apitest.StartFreezing(t)
		testCancelFrozen(t, d, api.Client{Caller: serve(t, d)})
	})
	t.Run("a plan touches nothing", func(t *testing.T) {
		d := apitest.StartFreezing(t)
		testPlan(t, d, api.Client{Caller: serve(t, d)})
	})
	t.Run("a verification is followed, and cancelled", func(t *testing.T) {
		d := apitest.StartFreezing(t)
		testVerify(t, d, api.Client{Caller: serve(t, d)})
	})
	t.Run("a restore is planned, followed, joined and cancelled", func(t *testing.T) {
		d := apitest.StartFreezing(t)
		testRestore(t, d, api.Client{Caller: serve(t, d)})
	})
	for _, c := range holds {
		t.Run(c.name, func(t *testing.T) {
			d := apitest.StartFreezing(t)
			c.test(t, d, api.Client{Caller: serve(t, d)})
		})
	}
}

func testInfo(t *testing.T, _ *apitest.Daemon, c api.Client) {
	got, err := c.Info(t.Context())
	no(t, err)
	want := api.Info{
		Version: "v1-test", Methods: api.Methods(), Levels: []string{"none", "sync", "freeze", "lock", "stop"}, Enabled: true,
		Instance: api.Instance{Deployment: "cf", Job: "db", Index: 2, ID: "inst-1", AgentID: apitest.AgentID},
	}
	same(t, want, got)
}

func testStatusIdle(t *testing.T, _ *apitest.Daemon, c api.Client) {
	got, err := c.Status(t.Context())
	no(t, err)
	want := api.Status{
		Version: "v1-test", Enabled: true,
		Instance: api.Instance{Deployment: "cf", Job: "db", Index: 2, ID: "inst-1", AgentID: apitest.AgentID},
	}
	same(t, want, got)
}

func testStatusBusy(t *testing.T, d *apitest.Daemon, c api.Client) {
	id := begin(t, d, c, agent.Request{ID: "run-1"})
	busy, err := c.Status(t.Context())
	no(t, err)
	if busy.Work != "run "+id || busy.Phase != string(agent.PhaseSnapshot) || busy.Since == nil || time.Since(*busy.Since) > time.Minute {
		t.Errorf("a status that does not say what is done: %+v", busy)
	}
	d.Release(t, "snapshot_disk")
	report(t, c, id)
	apitest.Eventually(t, "the daemon is idle", func() bool {
		idle, err := c.Status(t.Context())
		no(t, err)
		return idle.Work == "" && idle.Last != nil && idle.Last.ID == id && idle.Snapshots == 1
	})
}

// testCancelUnfrozen leaves open how the run ends: nothing was held that ends

// earlier for its being cancelled.

func testMetrics(t *testing.T, _ *apitest.Daemon, c api.Client) {
	take(t, c)
	text, err := c.Metrics(t.Context())
	no(t, err)
	for _, line := range []string{
		"# TYPE quiesced_runs_total counter\n",
		`quiesced_runs_total{level="none",outcome="succeeded",trigger="manual"} 1` + "\n",
		"quiesced_snapshots_enabled 1\n",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
}

// begin begins a run whose CPI call is then held.

func begin(t *testing.T, d *apitest.Daemon, c api.Client, r agent.Request) string {
	t.Helper()
	d.Hold(t, "snapshot_disk")
	id, err := c.Take(t.Context(), r)
	no(t, err)
	d.AwaitCall(t, "snapshot_disk", 1)
	return id
}

// take makes a snapshot.

func take(t *testing.T, c api.Client) string {
	t.Helper()
	id, err := c.Take(t.Context(), agent.Request{Wait: true})
	no(t, err)
	report(t, c, id)
	apitest.Eventually(t, "the daemon is idle", func() bool {
		s, err := c.Status(t.Context())
		no(t, err)
		return s.Work == ""
	})
	return id
}

func report(t *testing.T, c api.Client, id string) wire.Report {
	t.Helper()
	r, err := c.Report(t.Context(), id)
	no(t, err)
	return r
}

// fails checks that an error is of a kind and says something.

func fails(t *testing.T, err error, kind api.Kind, says string) *api.Error {
	t.Helper()
	var x *api.Error
	if !errors.As(err, &x) {
		t.Fatalf("the error is no *api.Error: %v", err)
	}
	if x.Kind != kind || !strings.Contains(x.Error(), says) {
		t.Errorf("the error is of kind %q, %.300q; want %q, %q", x.Kind, x.Error(), kind, says)
	}
	return x
}

func no(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same[T any](t *testing.T, want, got T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
