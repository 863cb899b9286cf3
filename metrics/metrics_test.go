package metrics_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/metrics"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// golden compares a text with a file of testdata, which -update rewrites.
func golden(t testing.TB, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		must(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s, -want +got:\n%s", path, diff)
	}
}

// fakeState is an agent's state that is made up.
type fakeState struct {
	status    agent.Status
	snapshots []agent.Snapshot
	reports   []agent.Report
	err       error // of everything that reads the journal
}

func (s *fakeState) Status() (agent.Status, error)        { return s.status, s.err }
func (s *fakeState) Snapshots() ([]agent.Snapshot, error) { return s.snapshots, s.err }
func (s *fakeState) Reports(int) ([]agent.Report, error)  { return s.reports, s.err }

func at(second int64) time.Time { return time.Unix(1774744200+second, 500e6) }

// reports are a run that is clean, one that failed at its deadline, one that
// reached less than asked, and one that was refused.
func reports() []agent.Report {
	return []agent.Report{
		{
			ID: "clean", Trigger: agent.TriggerScheduled, Outcome: agent.OutcomeSucceeded,
			Asked: agent.LevelFreeze, Reached: agent.LevelFreeze, Clean: true, Ended: at(0),
			Disks: []agent.DiskResult{{CID: "vol-1", SnapshotCID: "snap-1", Clean: true, Took: 1500 * time.Millisecond}},
			Thaws: []agent.Thaw{{Mount: "/store", Cause: "asked", State: "thawed", FrozenFor: 1250 * time.Millisecond}},
			Phases: map[agent.Phase]time.Duration{
				agent.PhasePreSync: 20 * time.Millisecond, agent.PhaseFrozen: 1250 * time.Millisecond,
				agent.PhaseSnapshot: 1500 * time.Millisecond, agent.PhaseTotal: 2 * time.Second,
			},
		},
		{
			ID: "late", Trigger: agent.TriggerManual, Outcome: agent.OutcomeFailed, Asked: agent.LevelFreeze, Reached: agent.LevelSync, Ended: at(60),
			Thaws: []agent.Thaw{
				{Mount: "/store", Cause: "deadline", State: "thawed", FrozenFor: 30 * time.Second},
				{Mount: "/more", Cause: "deadline", State: "thawed", FrozenFor: 30 * time.Second},
			},
			Phases: map[agent.Phase]time.Duration{agent.PhaseFrozen: 30 * time.Second, agent.PhaseTotal: 31 * time.Second},
		},
		{
			ID: "dirty", Trigger: agent.TriggerSelf, Outcome: agent.OutcomeSucceeded, Asked: agent.LevelSync, Reached: agent.LevelSync, Ended: at(120),
			Phases: map[agent.Phase]time.Duration{agent.PhaseTotal: time.Second},
		},
		{ID: "refused", Trigger: "x\n{}", Asked: "deep", Outcome: agent.OutcomeRefused},
	}
}

// filled is a registry after those runs, watching a state.
func filled(t testing.TB) *metrics.Metrics {
	t.Helper()
	m := metrics.New()
	must(t, m.Watch(&fakeState{
		status: agent.Status{CopiesFailed: 2, Copies: []agent.CopyStatus{{DiskCID: "vol-1"}, {DiskCID: "vol-2", Current: true}}, Redeletes: agent.Redeletes{Tried: 3, Failed: 1}, Enabled: true, Work: "run clean", Stuck: []string{"/store"}, LastVerified: at(180), Verification: &agent.VerificationStatus{Left: "in use"}, Scheduled: []agent.Scheduled{
			{Trigger: agent.TriggerScheduled, Next: at(86400), Last: at(0), Missed: 2, Skipped: 1},
			{Trigger: agent.TriggerSelf},
		}, Retention: &agent.RetentionCounts{Deleted: 12, Failed: 1, Last: at(60)}},
		snapshots: []agent.Snapshot{
			{CID: "snap-1", State: agent.SnapshotKnown, Clean: true},
			{CID: "snap-2", State: agent.SnapshotDeleting},
			{CID: "snap-3", State: agent.SnapshotKnown, Clean: true},
			{State: agent.SnapshotUnresolved},
		},
	}))
	for _, r := range reports() {
		m.RunEnded(r)
	}
	m.VerificationEnded(agent.Verified{Verification: agent.Verification{OK: true}}, nil)
	m.VerificationEnded(agent.Verified{}, nil)
	m.VerificationEnded(agent.Verified{Verification: agent.Verification{OK: true}}, errors.New("nobody can tell"))
	m.JournalFailed()
	return m
}

func text(t testing.TB, m *metrics.Metrics) string {
	t.Helper()
	got, err := m.Text()
	must(t, err)
	return got
}

func TestMetricsKeepToPrometheusConventions(t *testing.T) {
	m := filled(t)
	m.Process()
	families, err := m.Registry().Gather()
	must(t, err)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	must(t, err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestExposition(t *testing.T) {
	golden(t, "exposition.golden", text(t, filled(t)))
}

// An alert on a counter that appears with its first increment never fires.
func TestSeriesAreThereBeforeAnythingHappens(t *testing.T) {
	golden(t, "start.golden", text(t, metrics.New()))
}

func TestProcessAddsBuildRuntimeAndProcess(t *testing.T) {
	m := metrics.New()
	m.Process()
	for _, name := range []string{"quiesced_build_info", "go_goroutines", "process_start_time_seconds"} {
		if !strings.Contains(text(t, m), "\n# TYPE "+name+" gauge\n") {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestHistogramOfPhasesIsNativeAndClassic(t *testing.T) {
	families, err := filled(t).Registry().Gather()
	must(t, err)
	for _, f := range families {
		if f.GetName() != metrics.PhaseSeconds {
			continue
		}
		for _, m := range f.GetMetric() {
			h := m.GetHistogram()
			if h.Schema == nil || h.GetSampleCount() > 0 && len(h.GetPositiveSpan()) == 0 {
				t.Errorf("%s has no native buckets", m.GetLabel())
			}
			if len(h.GetBucket()) == 0 {
				t.Errorf("%s has no classic buckets", m.GetLabel())
			}
		}
		return
	}
	t.Errorf("%s is missing", metrics.PhaseSeconds)
}

func TestRequestsThatAreRefusedMakeUpNoLabels(t *testing.T) {
	m := metrics.New()
	before := series(t, m)
	for _, made := range []string{"a", "b", "", "manual ", "c\xff"} {
		m.RunEnded(agent.Report{Trigger: agent.Trigger(made), Asked: agent.Level(made), Outcome: agent.OutcomeRefused})
	}
	after := series(t, m)
	if after != before+1 {
		t.Errorf("%d series became %d, want one more", before, after)
	}
	want := metrics.Runs + `{level="unknown",outcome="refused",trigger="unknown"} 5`
	if !strings.Contains(text(t, m), want+"\n") {
		t.Errorf("no %s in\n%s", want, text(t, m))
	}
}

// series counts the series of runs.
func series(t testing.TB, m *metrics.Metrics) int {
	t.Helper()
	return strings.Count(text(t, m), "\n"+metrics.Runs+"{")
}

func TestHistoryIsTakenFromTheJournal(t *testing.T) {
	failed := agent.Report{Outcome: agent.OutcomeFailed, Ended: at(3)}
	dirty := agent.Report{Outcome: agent.OutcomeSucceeded, Ended: at(2)}
	// Clean but failed: one disk's snapshot is, another's disk could not be thawed.
	clean := agent.Report{Outcome: agent.OutcomeNotResumed, Clean: true, Ended: at(1)}
	old := agent.Report{Outcome: agent.OutcomeSucceeded, Clean: true, Ended: at(0)}
	for name, c := range map[string]struct {
		reports        []agent.Report // newest first
		success, clean string
	}{
		"no run":                  {nil, "0", "0"},
		"none that succeeded":     {[]agent.Report{failed}, "0", "0"},
		"the newest of each kind": {[]agent.Report{failed, dirty, clean, old}, "1.7747442025e+09", "1.7747442015e+09"},
		"one that is both":        {[]agent.Report{failed, old}, "1.7747442005e+09", "1.7747442005e+09"},
	} {
		t.Run(name, func(t *testing.T) {
			m := metrics.New()
			must(t, m.Watch(&fakeState{reports: c.reports}))
			for metric, want := range map[string]string{metrics.LastSuccess: c.success, metrics.LastClean: c.clean} {
				if got := value(t, m, metric); got != want {
					t.Errorf("%s is %s, want %s", metric, got, want)
				}
			}
		})
	}
}

// value is that of a metric without labels.
func value(t testing.TB, m *metrics.Metrics, name string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^` + name + ` (.*)$`).FindStringSubmatch(text(t, m))
	if found == nil {
		return "missing"
	}
	return found[1]
}

func TestStateThatCannotBeReadIsMissingButTheRestIsThere(t *testing.T) {
	state := &fakeState{status: agent.Status{Enabled: true}}
	m := metrics.New()
	must(t, m.Watch(state))
	if got := value(t, m, metrics.Enabled); got != "1" {
		t.Errorf("%s is %s", metrics.Enabled, got)
	}
	state.err = errors.New("the journal is gone")
	m.JournalFailed()
	for metric, want := range map[string]string{
		metrics.Enabled: "missing", metrics.Unresolved: "missing", metrics.Busy: "missing", metrics.JournalErrors: "1",
	} {
		if got := value(t, m, metric); got != want {
			t.Errorf("%s is %s, want %s", metric, got, want)
		}
	}
}

func TestHistoryThatCannotBeReadIsAnError(t *testing.T) {
	gone := errors.New("the journal is gone")
	if err := metrics.New().Watch(&fakeState{err: gone}); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}

func TestSamplesOfAReport(t *testing.T) {
	var all strings.Builder
	for _, r := range reports() {
		doc, err := json.MarshalIndent(metrics.Samples(r), "", "  ")
		must(t, err)
		all.WriteString(r.ID + "\n" + string(doc) + "\n")
	}
	golden(t, "samples.golden", all.String())
}
