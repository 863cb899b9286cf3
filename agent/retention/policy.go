package retention

import (
	"fmt"
	"strings"
	"time"
)

// Policy is how many snapshots of a disk are kept, 0 for none by that count.
type Policy struct {
	Last    int
	Hourly  int
	Daily   int
	Weekly  int
	Monthly int
	Yearly  int
	MaxAge  time.Duration // beyond which none is kept, 0 for no limit
}

// Empty says that the policy keeps all.
func (p Policy) Empty() bool { return p == Policy{} }

// Policies are a policy for all snapshots, and those that triggers have in its place.
type Policies struct {
	General Policy
	Own     map[string]Policy // by trigger
}

// Empty says that nothing ever goes.
func (p Policies) Empty() bool {
	for _, own := range p.Own {
		if !own.Empty() {
			return false
		}
	}
	return p.General.Empty()
}

// of is the policy of a trigger's snapshots, and the trigger whose own it is, "" for
// the general one.
func (p Policies) of(trigger string) (Policy, string) {
	if own, ok := p.Own[trigger]; ok {
		return own, trigger
	}
	return p.General, ""
}

// rule keeps snapshots of so many periods.
type rule struct {
	name   string
	count  int
	period func(time.Time) int // of a time in UTC; the same for all times in it
	label  func(time.Time) string
}

func (p Policy) rules() []rule {
	return []rule{
		{"hourly", p.Hourly, func(t time.Time) int { return day(t)*24 + t.Hour() }, layout("2006-01-02T15")},
		{"daily", p.Daily, day, layout(time.DateOnly)},
		{"weekly", p.Weekly, week, func(t time.Time) string { return fmt.Sprintf("%d-W%02d", week(t)/100, week(t)%100) }},
		{"monthly", p.Monthly, month, layout("2006-01")},
		{"yearly", p.Yearly, time.Time.Year, layout("2006")},
	}
}

func layout(of string) func(time.Time) string {
	return func(t time.Time) string { return t.Format(of) }
}

func day(t time.Time) int { return t.Year()*1000 + t.YearDay() }

func week(t time.Time) int {
	year, week := t.ISOWeek()
	return year*100 + week
}

func month(t time.Time) int { return t.Year()*100 + int(t.Month()) }

// counts says whether the policy has any.
func (p Policy) counts() bool { return p != Policy{MaxAge: p.MaxAge} }

// mark notes which of a group the policy keeps. The group is sorted, the newest first.
func (p Policy) mark(group []*candidate, now time.Time) {
	switch {
	case p.Empty():
		markAll(group, "its policy keeps all")
	case !p.counts():
		markAll(group, fmt.Sprintf("younger than %s", age(p.MaxAge)))
	default:
		p.markCounted(group)
	}
	if p.MaxAge == 0 {
		return
	}
	for _, c := range group {
		if now.Sub(c.Time) > p.MaxAge {
			c.kept, c.gone = "", "older than "+age(p.MaxAge)
		}
	}
}

func markAll(group []*candidate, why string) {
	for _, c := range group {
		c.keep(why)
	}
}

func (p Policy) markCounted(group []*candidate) {
	newest := fmt.Sprintf("among the last %d", p.Last)
	if p.Last == 0 {
		newest = "the newest one"
	}
	markAll(group[:min(max(p.Last, 1), len(group))], newest)
	for _, r := range p.rules() {
		r.mark(group)
	}
}

// mark keeps one of each of the newest periods.
func (r rule) mark(group []*candidate) {
	for left := r.count; left > 0 && len(group) > 0; left-- {
		period := r.period(group[0].Time.UTC())
		best, n := group[0], 1
		for ; n < len(group) && r.period(group[n].Time.UTC()) == period; n++ {
			if !best.Clean && group[n].Clean {
				best = group[n]
			}
		}
		best.keep(r.name + " " + r.label(best.Time.UTC()))
		group = group[n:]
	}
}

// age is a time in days and what is left, such as 1d12h.
func age(d time.Duration) string {
	const day = 24 * time.Hour
	rest := (d % day).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(rest, zero) {
			rest = rest[:len(rest)-2]
		}
	}
	switch days := d / day; {
	case days == 0:
		return rest
	case d%day == 0:
		return fmt.Sprintf("%dd", days)
	default:
		return fmt.Sprintf("%dd%s", days, rest)
	}
}
