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

func TestEveryVerdictAndTimeIsThatOfRufusScheduler(t *testing.T) {
	for _, c := range load(t, "rufus_cron.json") {
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
