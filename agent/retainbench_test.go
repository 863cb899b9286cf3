package agent_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/retention"
)

// manySnapshots is how many the catalogue of the benchmark has.
const manySnapshots = 10000

// applications is how often retention is applied at the least.
const applications = 100

// BenchmarkRetention is an application to a catalogue of 10,000 snapshots, all of which
// stay: what is known is read, decided on and left. heap-KiB is by how much the heap has
// grown after all of them.
func BenchmarkRetention(b *testing.B) {
	all := make([]agent.Snapshot, 0, manySnapshots)
	for i := range manySnapshots {
		all = append(all, agent.Snapshot{
			CID: fmt.Sprintf("snap-%d", i), DiskCID: apitest.DiskCID, State: agent.SnapshotKnown, Clean: i%5 > 0,
			Trigger: agent.TriggerScheduled, RunID: fmt.Sprintf("run-%d", i), Created: time.Now().Add(-time.Duration(i) * time.Hour),
		})
	}
	d := apitest.Start(b, filled(b, all...), keep(retention.Policy{
		Last: 100, Hourly: manySnapshots, Daily: 1000, Weekly: 100, Monthly: 100, Yearly: 10, MaxAge: manySnapshots * time.Hour,
	}))
	apply := func() {
		if r, err := d.Agent.ApplyRetention(b.Context()); err != nil || len(r.Snapshots) > 0 || r.Note != "" {
			b.Fatalf("it came to %+v, %v", r, err)
		}
	}
	apply()
	before := heap()
	b.ReportAllocs()
	applied := 0
	for b.Loop() {
		apply()
		applied++
	}
	for ; applied < applications; applied++ {
		apply()
	}
	b.ReportMetric(float64(heap()-before)/1024, "heap-KiB")
}

// heap is what is in use, in bytes, once what is not has been collected.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
