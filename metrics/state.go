package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quiesced/quiesced/agent"
)

// State is where the agent's state is read at each scrape.
type State interface {
	Status() (agent.Status, error)
	Snapshots() ([]agent.Snapshot, error)
	Reports(limit int) ([]agent.Report, error)
}

// Watch adds the metrics of the agent's state, and takes the times of the last
// successful and the last clean run from its history, so that a restart of the
// daemon does not look like a backup that never was.
func (m *Metrics) Watch(s State) error {
	reports, err := s.Reports(0)
	if err != nil {
		return err
	}
	var success, clean bool
	for _, r := range reports { // newest first
		if !success && r.Outcome == agent.OutcomeSucceeded && r.Restore == nil {
			success = true
			m.lastSuccess.Set(seconds(r.Ended))
		}
		if !clean && r.Clean {
			clean = true
			m.lastClean.Set(seconds(r.Ended))
		}
	}
	return m.registry.Register(&state{s})
}

// state reads gauges when it is scraped.
type state struct{ State }

var (
	snapshotsDesc  = prometheus.NewDesc(Snapshots, "Snapshots in the catalogue whose CIDs are known.", []string{"clean", "state"}, nil)
	redeletedDesc  = prometheus.NewDesc(Redeleted, "How often it was tried again to delete a snapshot that was half deleted.", nil, nil)
	notDeletedDesc = prometheus.NewDesc(NotDeleted, "How often it failed to delete a snapshot that was half deleted.", nil, nil)
	unresolvedDesc = prometheus.NewDesc(Unresolved, "Snapshots that the CPI may have made and whose CIDs are not known.", nil, nil)
	outdatedDesc   = prometheus.NewDesc(Outdated, "Disks whose copy of the catalogue is not as the catalogue is.", nil, nil)
	notCopiedDesc  = prometheus.NewDesc(NotCopied, "How often a copy of the catalogue could not be read or written.", nil, nil)
	busyDesc       = prometheus.NewDesc(Busy, "1 while a run or a deletion is under way.", nil, nil)
	stuckDesc      = prometheus.NewDesc(Stuck, "Freezes of dead guards that could not be thawed yet.", nil, nil)
	notGoingDesc   = prometheus.NewDesc(NotGoing, "Services, locks and hooks of jobs that could not be set going again yet.", nil, nil)
	yieldedDesc    = prometheus.NewDesc(Yielded, "1 while the director has the jobs to itself.", nil, nil)
	nextDesc       = prometheus.NewDesc(ScheduledNext, "When the next scheduled run begins, 0 for never.", []string{"trigger"}, nil)
	lastDesc       = prometheus.NewDesc(ScheduledLast, "The newest time of the schedule that was dealt with, 0 for none.", []string{"trigger"}, nil)
	missedDesc     = prometheus.NewDesc(Missed, "Scheduled runs for which the daemon or the VM was down.", []string{"trigger"}, nil)
	skippedDesc    = prometheus.NewDesc(Skipped, "Scheduled runs that did not begin since other work had the VM.", []string{"trigger"}, nil)
	verifiedDesc   = prometheus.NewDesc(LastVerified, "When a snapshot was last found good, of those in the catalogue, 0 for never.", nil, nil)
	scratchDesc    = prometheus.NewDesc(ScratchLeft, "Disks made for verifications that could not be removed yet.", nil, nil)
	retiredDesc    = prometheus.NewDesc(Retired, "Snapshots that retention deleted.", nil, nil)
	notRetiredDesc = prometheus.NewDesc(NotRetired, "Deletions by retention that failed; they are tried again.", nil, nil)
	retentionDesc  = prometheus.NewDesc(LastRetention, "When retention was last applied to its end, 0 for not since the daemon began.", nil, nil)
	enabledDesc    = prometheus.NewDesc(Enabled, "1 if enable_snapshots is true.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *state) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		snapshotsDesc, unresolvedDesc, redeletedDesc, notDeletedDesc, outdatedDesc, notCopiedDesc, busyDesc, stuckDesc, notGoingDesc, yieldedDesc, enabledDesc,
		nextDesc, lastDesc, missedDesc, skippedDesc, verifiedDesc, scratchDesc, retiredDesc, notRetiredDesc, retentionDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. A journal that cannot be read is
// missing series and a counted error, not a failed scrape.
func (s *state) Collect(ch chan<- prometheus.Metric) {
	if status, err := s.Status(); err == nil {
		series(ch).status(status)
	}
	if all, err := s.Snapshots(); err == nil {
		series(ch).snapshots(all)
	}
}

// series is where one scrape's go.
type series chan<- prometheus.Metric

func (s series) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (s series) count(d *prometheus.Desc, n int, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func (s series) status(status agent.Status) {
	s.gauge(busyDesc, number(status.Work != ""))
	s.gauge(stuckDesc, float64(len(status.Stuck)))
	s.gauge(notGoingDesc, float64(len(status.NotGoing)))
	s.gauge(yieldedDesc, number(!status.Yielded.IsZero()))
	s.gauge(enabledDesc, number(status.Enabled))
	s.gauge(verifiedDesc, instant(status.LastVerified))
	s.gauge(scratchDesc, number(status.Verification != nil && status.Verification.Left != ""))
	s.count(redeletedDesc, status.Redeletes.Tried)
	s.count(notDeletedDesc, status.Redeletes.Failed)
	if r := status.Retention; r != nil {
		s.count(retiredDesc, r.Deleted)
		s.count(notRetiredDesc, r.Failed)
		s.gauge(retentionDesc, instant(r.Last))
	}
	s.gauge(outdatedDesc, float64(outdated(status.Copies)))
	s.count(notCopiedDesc, status.CopiesFailed)
	for _, one := range status.Scheduled {
		trigger := string(one.Trigger)
		s.gauge(nextDesc, instant(one.Next), trigger)
		s.gauge(lastDesc, instant(one.Last), trigger)
		s.count(missedDesc, one.Missed, trigger)
		s.count(skippedDesc, one.Skipped, trigger)
	}
}

func (s series) snapshots(all []agent.Snapshot) {
	type kind struct {
		clean bool
		state agent.SnapshotState
	}
	found := map[kind]int{}
	for _, one := range all {
		found[kind{one.Clean, one.State}]++
	}
	unresolved := agent.SnapshotUnresolved
	s.gauge(unresolvedDesc, float64(found[kind{false, unresolved}]+found[kind{true, unresolved}]))
	for _, clean := range []bool{false, true} {
		for _, state := range []agent.SnapshotState{agent.SnapshotKnown, agent.SnapshotDeleting} {
			s.gauge(snapshotsDesc, float64(found[kind{clean, state}]), strconv.FormatBool(clean), string(state))
		}
	}
}

func outdated(copies []agent.CopyStatus) (n int) {
	for _, c := range copies {
		if !c.Current {
			n++
		}
	}
	return n
}

func instant(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return seconds(t)
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
