package schedule_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent/schedule"
)

// seen is what rufus-scheduler was seen to say of a string.
type seen struct {
	Cron string      `json:"cron"`
	OK   bool        `json:"ok"`
	From time.Time   `json:"from"`
	Next []time.Time `json:"next"`
}

func load(t testing.TB, name string) []seen {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var all []seen
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// following is the next times after one, as many as there are up to n.
func following(s *schedule.Schedule, after time.Time, n int) []time.Time {
	all := []time.Time{}
	for next := s.Next(after); !next.IsZero() && len(all) < n; next = s.Next(next) {
		all = append(all, next)
	}
	return all
}

// rufus_cron.json was seen with a director, fugit_1.5.2.json with the fugit of Debian 12,
// and holds nothing that later ones changed.
func TestEveryVerdictAndTimeIsThatOfRufusScheduler(t *testing.T) {
	for _, c := range append(load(t, "rufus_cron.json"), load(t, "fugit_1.5.2.json")...) {
		t.Run(c.Cron+" from "+c.From.Format(time.RFC3339), func(t *testing.T) {
			s, err := schedule.Parse(c.Cron)
			if (err == nil) != c.OK {
				t.Fatalf("error %v, want one: %t", err, !c.OK)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(c.Next, following(s, c.From, len(c.Next))); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestWhatLaterFugitsAdded(t *testing.T) {
	for name, c := range map[string]struct {
		cron, from string
		want       []string
	}{
		"weeks are counted from a Monday":      {"0 12 * * 0%2+1,3%2+1", "2025-09-25", []string{"2025-09-28T12", "2025-10-08T12", "2025-10-12T12", "2025-10-22T12"}},
		"one weekday in two weeks of four":     {"0 0 * * wed%4+1,wed%4", "2025-09-25", []string{"2025-10-01T00", "2025-10-08T00", "2025-10-29T00", "2025-11-05T00"}},
		"more weeks are added than there are":  {"0 8 * * 1%2+2", "2021-04-21", []string{"2021-05-03T08", "2021-05-17T08"}},
		"weeks of a zone's own calendar":       {"0 0 * * mon%2 Asia/Tokyo", "2026-01-01", []string{"2026-01-04T15", "2026-01-18T15"}},
		"weeks in summer":                      {"0 0 * * mon%2 America/New_York", "2026-02-20", []string{"2026-03-02T05", "2026-03-16T04", "2026-03-30T04"}},
		"both days have to suit":               {"0 6 1-7 * 2&", "2020-03-15", []string{"2020-04-07T06", "2020-05-05T06"}},
		"both days, said with the other":       {"0 6 1-7& * 2", "2020-03-15", []string{"2020-04-07T06", "2020-05-05T06"}},
		"days of the whole month say nothing":  {"0 0 1-31 * mon", "2026-03-08", []string{"2026-03-09T00", "2026-03-16T00"}},
		"a step from a number goes to the end": {"0 7/5 * * *", "2022-09-21", []string{"2022-09-21T07", "2022-09-21T12", "2022-09-21T17", "2022-09-21T22", "2022-09-22T07"}},
		"a step in a range that wraps":         {"0 0 * * fri-mon/2", "2026-07-01", []string{"2026-07-03T00", "2026-07-05T00", "2026-07-10T00"}},
		"commas to spare":                      {",,0, 9,,10 , * * *", "2026-07-01", []string{"2026-07-01T09", "2026-07-01T10", "2026-07-02T09"}},
		"spaces around":                        {" \t0 9 * * *\n", "2026-07-01", []string{"2026-07-01T09", "2026-07-02T09"}},
		"a zone after a nickname":              {"@daily Asia/Tokyo", "2026-07-01", []string{"2026-07-01T15", "2026-07-02T15"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := schedule.Parse(c.cron)
			if err != nil {
				t.Fatal(err)
			}
			from, err := time.Parse(time.DateOnly, c.from)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, at := range following(s, from, len(c.want)) {
				got = append(got, at.Format("2006-01-02T15"))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestAScheduleWithoutAZoneIsInTheOneThatItIsGiven(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	from := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
	for text, want := range map[string]int{"0 9 * * *": 7, "0 9 * * * UTC": 9, "0 9 * * * +01:00": 8} {
		s, err := schedule.ParseIn(text, berlin)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Next(from); got.Hour() != want || got.Location() != time.UTC {
			t.Errorf("%q is next at %s, want hour %d of UTC", text, got, want)
		}
	}
}

func TestNextEndsWithTheYear9999(t *testing.T) {
	s, err := schedule.Parse("0 0 1 12 *")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ after, want time.Time }{
		"the last":             {time.Date(9999, 11, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 1, 0, 0, 0, 0, time.UTC)},
		"after the last":       {time.Date(9999, 12, 1, 0, 0, 0, 0, time.UTC), time.Time{}},
		"after all of time":    {time.Unix(1<<62, 0), time.Time{}},
		"from before all time": {time.Unix(-1<<62, 0), time.Date(1, 12, 1, 0, 0, 0, 0, time.UTC)},
		"from the zero time":   {time.Time{}, time.Date(1, 12, 1, 0, 0, 0, 0, time.UTC)},
	} {
		t.Run(name, func(t *testing.T) {
			if got := s.Next(c.after); !got.Equal(c.want) {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}
