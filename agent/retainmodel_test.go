package agent_test

import (
	"slices"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/retention"
)

// yearPolicies are those of the year.
var yearPolicies = retention.Policies{
	General: retention.Policy{Last: 3, Daily: 7, Weekly: 4, Monthly: 3, MaxAge: 40 * 24 * time.Hour},
	Own:     map[string]retention.Policy{"manual": {Last: 2}},
}

// made is a snapshot as the world knows it: what took it, not what the daemon says of it.
type made struct {
	cid     string
	at      time.Time
	trigger agent.Trigger
	clean   bool
	held    bool
}

// left is the model: what is left, at a time, of all that were ever made. It goes back
// through the calendar, day by day, week by week, month by month.
func (y *year) left(now time.Time) []string {
	var scheduled, manual, all []made
	for _, s := range y.made {
		switch {
		case s.held:
			all = append(all, s)
		case s.trigger == agent.TriggerManual:
			manual = append(manual, s)
		default:
			scheduled = append(scheduled, s)
		}
	}
	stay := slices.Concat(all, newest(manual, 2))
	day := now.UTC().Truncate(24 * time.Hour)
	monday := day.AddDate(0, 0, -(int(day.Weekday())+6)%7)
	month := time.Date(day.Year(), day.Month(), 1, 0, 0, 0, 0, time.UTC)
	counted := slices.Concat(
		newest(scheduled, 3),
		bests(scheduled, 7, day, func(d time.Time) time.Time { return d.AddDate(0, 0, -1) }),
		bests(scheduled, 4, monday, func(d time.Time) time.Time { return d.AddDate(0, 0, -7) }),
		bests(scheduled, 3, month, func(d time.Time) time.Time { return d.AddDate(0, -1, 0) }),
	)
	for _, s := range counted {
		if now.Sub(s.at) <= 40*24*time.Hour {
			stay = append(stay, s)
		}
	}
	for _, s := range slices.Backward(y.made) {
		if s.clean && !s.held {
			stay = append(stay, s)
			break
		}
	}
	var cids []string
	for _, s := range stay {
		cids = append(cids, s.cid)
	}
	slices.Sort(cids)
	return slices.Compact(cids)
}

// newest are the last ones, so many at most.
func newest(all []made, n int) []made { return all[max(0, len(all)-n):] }

// bests are the best ones of the newest n periods that have any, the first of which begins
// at from; back leads to the one before.
func bests(all []made, n int, from time.Time, back func(time.Time) time.Time) []made {
	var found []made
	end := from.AddDate(1, 0, 0)
	for ; n > 0 && from.Year() > 1998; end, from = from, back(from) {
		in := slices.DeleteFunc(slices.Clone(all), func(s made) bool { return s.at.Before(from) || !s.at.Before(end) })
		clean := slices.DeleteFunc(slices.Clone(in), func(s made) bool { return !s.clean })
		switch {
		case len(clean) > 0:
			found = append(found, clean[len(clean)-1])
		case len(in) > 0:
			found = append(found, in[len(in)-1])
		default:
			continue
		}
		n--
	}
	return found
}
