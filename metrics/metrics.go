// Package metrics is what Prometheus scrapes: the daemon's own registry, its
// collectors, and the samples of one run that its report carries.
//
// Names, units and labels are documented in docs/metrics.md.
package metrics

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/quiesce/guard"
)

// Names of the metrics.
const (
	Runs          = "quiesced_runs_total"
	PhaseSeconds  = "quiesced_phase_duration_seconds"
	FrozenSeconds = "quiesced_frozen_seconds_total"
	Thaws         = "quiesced_thaws_total"
	LastSuccess   = "quiesced_last_success_timestamp_seconds"
	LastClean     = "quiesced_last_clean_timestamp_seconds"
	Verifications = "quiesced_verifications_total"
	LastVerified  = "quiesced_last_verified_timestamp_seconds"
	ScratchLeft   = "quiesced_verification_disks_left"
	JournalErrors = "quiesced_journal_errors_total"
	Snapshots     = "quiesced_snapshots"
	Unresolved    = "quiesced_unresolved_snapshots"
	Redeleted     = "quiesced_snapshot_deletes_retried_total"
	NotDeleted    = "quiesced_snapshot_deletes_failed_total"
	Outdated      = "quiesced_catalogue_copies_outdated"
	NotCopied     = "quiesced_catalogue_copy_failures_total"
	Busy          = "quiesced_busy"
	Stuck         = "quiesced_stuck_filesystems"
	NotGoing      = "quiesced_jobs_not_resumed"
	Yielded       = "quiesced_yielded"
	Enabled       = "quiesced_snapshots_enabled"
	ScheduledNext = "quiesced_schedule_next_timestamp_seconds"
	ScheduledLast = "quiesced_schedule_last_timestamp_seconds"
	Missed        = "quiesced_schedule_missed_total"
	Skipped       = "quiesced_schedule_skipped_total"
	Restores      = "quiesced_restores_total"
	Retired       = "quiesced_retention_deleted_total"
	NotRetired    = "quiesced_retention_failed_total"
	LastRetention = "quiesced_retention_last_timestamp_seconds"
)

// Metrics implements agent.Observer and holds the registry.
type Metrics struct {
	registry *prometheus.Registry

	runs          *prometheus.CounterVec
	phases        *prometheus.HistogramVec
	frozen        prometheus.Counter
	thaws         *prometheus.CounterVec
	lastSuccess   prometheus.Gauge
	lastClean     prometheus.Gauge
	verifications *prometheus.CounterVec
	journalErrors prometheus.Counter
	restores      *prometheus.CounterVec
}

// buckets reach from a freeze of a millisecond to a snapshot of an hour.
var buckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600}

// New makes the metrics of a run's life. Watch adds those of the agent's state.
func New() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: Runs, Help: "Runs that ended, by what made them happen, the level asked for and how they ended.",
		}, []string{"trigger", "level", "outcome"}),
		phases: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: PhaseSeconds, Help: "Time that each phase of a run took.",
			Buckets: buckets, NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		}, []string{"phase"}),
		frozen: prometheus.NewCounter(prometheus.CounterOpts{
			Name: FrozenSeconds, Help: "Time that runs kept applications waiting on frozen filesystems.",
		}),
		thaws: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: Thaws, Help: "Filesystems thawed, by what made it happen.",
		}, []string{"cause"}),
		lastSuccess: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: LastSuccess, Help: "When the last successful run ended, 0 if there was none.",
		}),
		lastClean: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: LastClean, Help: "When the last run whose snapshots are clean ended, 0 if there was none.",
		}),
		verifications: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: Verifications, Help: "Verifications of snapshots that ended, by what they found.",
		}, []string{"result"}),
		journalErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: JournalErrors, Help: "Failures to read or write the journal.",
		}),
		restores: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: Restores, Help: "Restores of snapshots that ended, by how they ended.",
		}, []string{"outcome"}),
	}
	m.registry.MustRegister(m.runs, m.phases, m.frozen, m.thaws, m.lastSuccess, m.lastClean, m.verifications, m.journalErrors, m.restores)
	m.zero()
	return m
}

// zero makes the series exist before anything happened, so that a rate over
// their first increment is right.
func (m *Metrics) zero() {
	for _, phase := range agent.ReportedPhases() {
		m.phases.WithLabelValues(string(phase))
	}
	for _, cause := range guard.Causes() {
		m.thaws.WithLabelValues(cause.String())
	}
	for _, result := range []string{verifiedGood, verifiedBad, verifiedFailed} {
		m.verifications.WithLabelValues(result)
	}
	for _, outcome := range []agent.Outcome{agent.OutcomeSucceeded, agent.OutcomeFailed, agent.OutcomeNotResumed} {
		m.restores.WithLabelValues(string(outcome))
	}
	for _, trigger := range agent.Triggers() {
		for _, outcome := range []agent.Outcome{agent.OutcomeSucceeded, agent.OutcomeFailed, agent.OutcomeNotResumed} {
			m.runs.WithLabelValues(string(trigger), string(agent.LevelFreeze), string(outcome))
		}
	}
}

// Process adds the metrics of the program itself: its build, its runtime and
// what the kernel says of its process.
func (m *Metrics) Process() {
	m.registry.MustRegister(
		versioncollector.NewCollector("quiesced"),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
}

// RunEnded counts a run. A restore takes no snapshot, and counts for itself alone.
func (m *Metrics) RunEnded(r agent.Report) {
	if r.Restore != nil {
		m.restores.WithLabelValues(string(r.Outcome)).Inc()
		return
	}
	m.runs.WithLabelValues(trigger(r), level(r), string(r.Outcome)).Inc()
	for phase, took := range r.Phases {
		m.phases.WithLabelValues(string(phase)).Observe(took.Seconds())
	}
	m.frozen.Add(r.Phases[agent.PhaseFrozen].Seconds())
	for _, t := range r.Thaws {
		m.thaws.WithLabelValues(t.Cause).Inc()
	}
	if r.Outcome == agent.OutcomeSucceeded {
		m.lastSuccess.Set(seconds(r.Ended))
	}
	if r.Clean {
		m.lastClean.Set(seconds(r.Ended))
	}
}

// What verifications find.
const (
	verifiedGood   = "good"
	verifiedBad    = "bad"
	verifiedFailed = "failed" // nobody can tell
)

// VerificationEnded counts a verification.
func (m *Metrics) VerificationEnded(v agent.Verified, err error) {
	result := verifiedBad
	switch {
	case err != nil:
		result = verifiedFailed
	case v.OK:
		result = verifiedGood
	}
	m.verifications.WithLabelValues(result).Inc()
}

// JournalFailed counts a failure to read or write the journal.
func (m *Metrics) JournalFailed() { m.journalErrors.Inc() }

// Handler serves the exposition, in whichever format the scraper asks for.
func (m *Metrics) Handler(log *slog.Logger) http.Handler {
	return promhttp.InstrumentMetricHandler(m.registry, promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelError),
		ErrorHandling: promhttp.ContinueOnError,
		Registry:      m.registry,
	}))
}

// Text is the exposition in Prometheus's text format.
func (m *Metrics) Text() (string, error) {
	families, err := m.registry.Gather()
	if err != nil {
		return "", fmt.Errorf("cannot gather metrics: %w", err)
	}
	var text bytes.Buffer
	enc := expfmt.NewEncoder(&text, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			return "", fmt.Errorf("cannot write metrics: %w", err)
		}
	}
	return text.String(), nil
}
