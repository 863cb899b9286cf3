package guard_test

import (
	"os"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/guard"
)

// BenchmarkFreezeThaw compares a freeze and thaw through the guard with the
// bare pair of ioctls, alternating. The ratio is that of the times an idle
// filesystem is held.
func BenchmarkFreezeThaw(b *testing.B) {
	bed, mnt := newBed(b), newFilesystem(b, "ext4")
	fs := identify(b, mnt)
	dir, err := os.Open(mnt)
	if err != nil {
		b.Fatal(err)
	}
	defer dir.Close()
	var bare, held, start, call time.Duration
	for b.Loop() {
		began := time.Now()
		if err := guard.IoctlPair(dir); err != nil {
			b.Fatal(err)
		}
		bare += time.Since(began)

		began = time.Now()
		g := bed.start(b, fs, guard.Options{})
		start += time.Since(began)
		began = time.Now()
		if err := g.Freeze(b.Context()); err != nil {
			b.Fatal(err)
		}
		call += time.Since(began)
		held += thaw(b, g).Filesystems[0].HeldFor
	}
	n := float64(b.N)
	b.ReportMetric(float64(bare.Microseconds())/n, "bare-µs/op")
	b.ReportMetric(float64(held.Microseconds())/n, "held-µs/op")
	b.ReportMetric(float64(held)/float64(bare), "held/bare")
	b.ReportMetric(float64(start.Microseconds())/n, "start-µs/op")
	b.ReportMetric(float64(call.Microseconds())/n, "freeze-µs/op")
}
