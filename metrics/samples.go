package metrics

import (
	"maps"
	"slices"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
)

// Names of samples that only a report carries.
const (
	RunClean        = "quiesced_run_clean"
	RunPhaseSeconds = "quiesced_run_phase_seconds"
	RunEnded        = "quiesced_run_ended_timestamp_seconds"
	RunFrozen       = "quiesced_run_filesystem_frozen_seconds"
	RunSnapshot     = "quiesced_run_disk_snapshot_seconds"
)

// Samples are one run's metrics, for its report; none of a restore, which takes no
// snapshot.
func Samples(r agent.Report) []wire.Sample {
	if r.Restore != nil {
		return nil
	}
	run := map[string]string{"trigger": trigger(r), "level": level(r), "outcome": string(r.Outcome)}
	clean := 0.0
	if r.Clean {
		clean = 1
	}
	samples := []wire.Sample{
		{Name: RunClean, Labels: run, Value: clean},
		{Name: RunEnded, Labels: run, Value: seconds(r.Ended)},
	}
	for _, phase := range slices.Sorted(maps.Keys(r.Phases)) {
		samples = append(samples, wire.Sample{
			Name: RunPhaseSeconds, Labels: map[string]string{"phase": string(phase)}, Value: r.Phases[phase].Seconds(),
		})
	}
	for _, t := range r.Thaws {
		samples = append(samples, wire.Sample{
			Name: RunFrozen, Labels: map[string]string{"mount": t.Mount, "cause": t.Cause}, Value: t.FrozenFor.Seconds(),
		})
	}
	for _, d := range r.Disks {
		samples = append(samples, wire.Sample{
			Name: RunSnapshot, Labels: map[string]string{"disk_cid": d.CID}, Value: d.Took.Seconds(),
		})
	}
	return samples
}

// trigger and level keep what a refused request made up out of the labels.
func trigger(r agent.Report) string {
	if _, err := agent.ParseTrigger(string(r.Trigger)); err != nil {
		return "unknown"
	}
	return string(r.Trigger)
}

func level(r agent.Report) string {
	if _, err := agent.ParseLevel(string(r.Asked)); err != nil {
		return "unknown"
	}
	return string(r.Asked)
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
