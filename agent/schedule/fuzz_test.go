package schedule_test

import (
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent/schedule"
)

// FuzzParse takes any text. What is taken runs at times that go forward and end, and
// that lie in the same schedule when its text is read again.
func FuzzParse(f *testing.F) {
	for _, c := range load(f, "rufus_cron.json") {
		f.Add(c.Cron, c.From.Unix())
	}
	for _, text := range []string{"0 9 * * mon%2+1 -03:30", "0 0 25-L,-7--1/2 feb-apr sun#L&", "@noon Asia/Tokyo", ",,1, ,2 24/5 * * fri-mon/2"} {
		f.Add(text, int64(2240524800)) // 2040-12-31, at the end of a leap year
	}
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		s, err := schedule.Parse(text)
		if err != nil {
			return
		}
		again, err := schedule.Parse(s.String())
		if err != nil {
			t.Fatalf("%q is taken once and not twice: %v", text, err)
		}
		after := time.Unix(unix, 0).UTC()
		for range 5 {
			began := time.Now()
			next := s.Next(after)
			if took := time.Since(began); took > 10*time.Second {
				t.Fatalf("%q after %s took %s", text, after, took)
			}
			if other := again.Next(after); !other.Equal(next) {
				t.Fatalf("%q after %s is %s and %s", text, after, next, other)
			}
			if next.IsZero() {
				return
			}
			if !next.After(after) || next.Nanosecond() != 0 || next.Year() > 9999 {
				t.Fatalf("%q after %s is %s", text, after, next)
			}
			after = next
		}
	})
}
