package schedule_test

import (
	"slices"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent/schedule"
)

// BenchmarkNext is how long the next time of a schedule takes, for those of
// rufus_cron.json: the median of them, and the slowest.
func BenchmarkNext(b *testing.B) {
	const times = 100
	type question struct {
		*schedule.Schedule
		after time.Time
		took  []float64 // µs
	}
	var all []*question
	for _, c := range load(b, "rufus_cron.json") {
		if s, err := schedule.Parse(c.Cron); err == nil {
			all = append(all, &question{Schedule: s, after: c.From})
		}
	}
	for b.Loop() {
		for _, q := range all {
			began := time.Now()
			for range times {
				q.Next(q.after)
			}
			q.took = append(q.took, time.Since(began).Seconds()*1e6/times)
		}
	}
	var medians []float64
	for _, q := range all {
		slices.Sort(q.took)
		medians = append(medians, q.took[len(q.took)/2])
	}
	slices.Sort(medians)
	b.ReportMetric(medians[len(medians)/2], "next-µs")
	b.ReportMetric(medians[len(medians)-1], "slowest-µs")
}
