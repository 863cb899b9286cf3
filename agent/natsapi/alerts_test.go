package natsapi_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/natsapi"
)

func TestWhichRunsRaiseAnAlert(t *testing.T) {
	no, yes := false, true
	for _, test := range []struct {
		name     string
		report   agent.Report
		severity natsapi.Severity // 0 for no alert
		title    string
		summary  string
	}{
		{"a filesystem that is frozen still", agent.Report{
			Outcome: agent.OutcomeNotResumed, Error: "cannot thaw", Thaws: []agent.Thaw{{State: "thawed"}, {State: "thawing"}},
		}, natsapi.SeverityAlert, "a filesystem may still be frozen", "cannot thaw"},
		{"jobs that do not run", agent.Report{
			Outcome: agent.OutcomeNotResumed, Error: "cannot start", Thaws: []agent.Thaw{{State: "thawed, unconfirmed"}, {State: "lost"}},
		}, natsapi.SeverityCritical, "jobs are not running again", "cannot start"},
		{"a failure", agent.Report{Outcome: agent.OutcomeFailed, Error: "no space"}, natsapi.SeverityError, "taking a snapshot failed", "no space"},
		{"a disk that is not in its place", agent.Report{Outcome: agent.OutcomeNotResumed, Error: "cannot mount", Restore: &agent.Restored{}},
			natsapi.SeverityCritical, "a disk is not in its place", "cannot mount"},
		{"a restore that failed", agent.Report{Outcome: agent.OutcomeFailed, Error: "damaged", Restore: &agent.Restored{Side: agent.SideBefore}},
			natsapi.SeverityError, "restoring a snapshot failed", "damaged"},
		{"a restore", agent.Report{Outcome: agent.OutcomeSucceeded, Asked: agent.LevelStop, Restore: &agent.Restored{Side: agent.SideRestored}}, 0, "", ""},
		{"a hold whose lease ran out", agent.Report{Outcome: agent.OutcomeFailed, Asked: agent.LevelFreeze, Unbroken: &no, Reason: "the lease ran out"},
			natsapi.SeverityError, "a snapshot was not held to its end", "the lease ran out"},
		{"a hold that was never at rest", agent.Report{Outcome: agent.OutcomeFailed, Asked: agent.LevelStop, Unbroken: &no, Reason: "no snapshot was taken", Error: "pre-stop failed"},
			natsapi.SeverityError, "a snapshot was not held to its end", "pre-stop failed"},
		{"a snapshot that is not clean", agent.Report{Outcome: agent.OutcomeSucceeded, Asked: agent.LevelFreeze, Reason: "deadline"},
			natsapi.SeverityWarning, "a snapshot is not clean", "deadline"},
		{"a snapshot that was not to be clean", agent.Report{Outcome: agent.OutcomeSucceeded, Asked: agent.LevelSync, Reason: "level"}, 0, "", ""},
		{"a clean one", agent.Report{Outcome: agent.OutcomeSucceeded, Asked: agent.LevelStop, Clean: true, Unbroken: &yes}, 0, "", ""},
		{"a request that was refused", agent.Report{Outcome: agent.OutcomeRefused, Asked: agent.LevelFreeze}, 0, "", ""},
		{"a run that was cancelled", agent.Report{Outcome: agent.OutcomeCancelled, Asked: agent.LevelFreeze}, 0, "", ""},
		{"a hold that was cancelled", agent.Report{Outcome: agent.OutcomeCancelled, Asked: agent.LevelFreeze, Unbroken: &no}, 0, "", ""},
		{"snapshots that are disabled", agent.Report{Outcome: agent.OutcomeDisabled, Asked: agent.LevelFreeze}, 0, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.report.ID, test.report.Ended = "run-1", time.Unix(1000, 0)
			want := natsapi.Alert{}
			if test.severity != 0 {
				want = natsapi.Alert{
					ID: "run-1", Severity: test.severity, Title: "quiesced: " + test.title, CreatedAt: 1000,
					Summary: fmt.Sprintf("run run-1 at level %s: %s", test.report.Asked, test.summary),
				}
			}
			got, _ := natsapi.AlertOf(test.report)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	long, _ := natsapi.AlertOf(agent.Report{Outcome: agent.OutcomeFailed, Error: strings.Repeat("é", 1<<20)})
	if len(long.Summary) > 3000 || !utf8.ValidString(long.Summary) {
		t.Errorf("a summary has %d bytes", len(long.Summary))
	}
}

// failed is a report that raises an alert.
func failed(i int) agent.Report {
	return agent.Report{ID: fmt.Sprintf("run-%d", i), Outcome: agent.OutcomeFailed}
}

func TestAlertsOutliveABusThatIsAway(t *testing.T) {
	t.Parallel()
	bus := apitest.StartDirectorBus(t, false)
	alerts := natsapi.NewAlerts(apitest.AgentID)
	log := logFile(t)
	config := bus.Config(t, bus.Authority.Issue(t, apitest.AgentCN))
	apitest.Background(t, natsapi.NewServer(apitest.Start(t).Handler, config, alerts, log.logger()).Serve)
	heard, err := bus.Connect(t, apitest.MonitorCN).SubscribeSync("hm.agent.alert.*")
	no(t, err)
	apitest.AwaitAnswer(t, bus.Client(t))
	alerts.RunEnded(failed(0))
	arrives(t, heard, 0)

	bus.Stop()
	const dropped = 3
	for i := range natsapi.KeptAlerts + dropped {
		alerts.RunEnded(failed(1 + i))
	}
	bus.Start(t)
	monitor := bus.Connect(t, apitest.MonitorCN)
	heard, err = monitor.SubscribeSync("hm.agent.alert.*")
	no(t, err)
	no(t, monitor.Flush())
	for i := range natsapi.KeptAlerts {
		arrives(t, heard, 1+dropped+i)
	}
	if m, err := heard.NextMsg(silence); err == nil {
		t.Errorf("one more is sent: %s", m.Data)
	}
	// The first may count as not sent: that the bus had it was not heard of in time.
	if text := log.text(t); !strings.Contains(text, "number=3") && !strings.Contains(text, "number=4") {
		t.Errorf("of alerts that were dropped the log has\n%s", log.text(t))
	}
}

func arrives(t *testing.T, heard *nats.Subscription, run int) {
	t.Helper()
	m, err := heard.NextMsg(20 * time.Second)
	no(t, err)
	var got natsapi.Alert
	no(t, json.Unmarshal(m.Data, &got))
	if want := fmt.Sprintf("run-%d", run); got.ID != want {
		t.Fatalf("the alert is of %s, want %s", got.ID, want)
	}
}

func TestAlertsOfAnEndedDaemonKeepNobodyWaiting(t *testing.T) {
	t.Parallel()
	alerts := natsapi.NewAlerts(apitest.AgentID)
	for i := range 10 * natsapi.KeptAlerts { // nobody sends them
		alerts.RunEnded(failed(i))
		alerts.JournalFailed()
	}
	bus := apitest.StartDirectorBus(t, false)
	heard, err := bus.Connect(t, apitest.MonitorCN).SubscribeSync("hm.agent.alert.*")
	no(t, err)
	config := bus.Config(t, bus.Authority.Issue(t, apitest.AgentCN))
	apitest.Background(t, natsapi.NewServer(apitest.Start(t).Handler, config, alerts, slog.New(slog.DiscardHandler)).Serve)
	arrives(t, heard, 9*natsapi.KeptAlerts)
}
