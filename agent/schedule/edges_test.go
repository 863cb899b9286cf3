package schedule_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent/schedule"
)

// edges are times at which clocks are changed, or at which a calendar turns.
var edges = []struct{ zone, at string }{
	{"America/New_York", "2026-03-08T07:00:00Z"},
	{"America/New_York", "2026-11-01T06:00:00Z"},
	{"America/New_York", "2041-01-01T00:00:00Z"}, // the last day of a leap year after the end of the zone's table
	{"America/Havana", "2026-03-08T05:00:00Z"},   // midnight is not there
	{"America/Havana", "2026-11-01T05:00:00Z"},   // midnight is there twice
	{"America/Santiago", "2026-09-06T04:00:00Z"},
	{"Africa/Casablanca", "2026-02-15T02:00:00Z"},
	{"Asia/Kathmandu", "2027-12-31T18:15:00Z"},
	{"Australia/Lord_Howe", "2026-04-04T15:00:00Z"}, // by half an hour
	{"Australia/Lord_Howe", "2026-10-03T15:30:00Z"},
	{"Europe/Berlin", "2030-03-31T01:00:00Z"}, // the last day of the month is an hour short
	{"Europe/Dublin", "2026-10-25T01:00:00Z"},
	{"Pacific/Apia", "2011-12-30T10:00:00Z"}, // a whole day is not there
	{"UTC", "2028-02-29T00:00:00Z"},
	{"-03:30", "2027-01-01T03:30:00Z"},
}

// shown is what the clocks show at every step within a time around an edge.
func shown(t *testing.T, zone *time.Location, edge string, within time.Duration, step int64) []clock {
	t.Helper()
	at, err := time.Parse(time.RFC3339, edge)
	if err != nil {
		t.Fatal(err)
	}
	var all []clock
	for unix := at.Add(-within).Unix(); unix < at.Add(within).Unix(); unix += step {
		all = append(all, showing(unix, zone))
	}
	return all
}

// Next is compared with a look at each second, or minute, around the edges.
func TestNextIsTheFirstSecondThatSuits(t *testing.T) {
	seed := rand.Uint64()
	for i, edge := range edges {
		t.Run(edge.zone+" "+edge.at, func(t *testing.T) {
			s, err := schedule.Parse("* * * * * " + edge.zone)
			if err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			minutes := shown(t, s.Zone(), edge.at, 48*time.Hour, 60)
			seconds := shown(t, s.Zone(), edge.at, 90*time.Minute, 1)
			ran := 0
			for range 30 {
				ran += compare(t, draw(r, false), edge.zone, minutes)
				ran += compare(t, draw(r, true), edge.zone, seconds)
			}
			if ran < 1000 {
				t.Errorf("the schedules ran %d times: nothing was compared", ran)
			}
			if t.Failed() {
				t.Logf("seed %d", seed)
			}
		})
	}
}

// compare has a schedule run while the clocks show one thing after the other, and says
// how often it should.
func compare(t *testing.T, d drawn, zone string, shown []clock) int {
	t.Helper()
	text := d.text + " " + zone
	want := []int64{}
	for _, c := range shown {
		if d.runs(c) {
			want = append(want, c.unix)
		}
	}
	s, err := schedule.Parse(text)
	if err != nil {
		if len(want) > 0 || !strings.HasSuffix(err.Error(), "there is never such a day") {
			t.Error(err)
		}
		return 0
	}
	got := []int64{}
	last := shown[len(shown)-1].unix
	// Just before a second is before it, too.
	after := time.Unix(shown[0].unix, 0).Add(-time.Nanosecond)
	for next := s.Next(after); !next.IsZero() && next.Unix() <= last; next = s.Next(next) {
		got = append(got, next.Unix())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%q: -want +got\n%.600s", text, diff)
	}
	return len(want)
}
