package retention_test

import (
	"slices"
	"time"

	"github.com/quiesced/quiesced/agent/retention"
)

// model says what a retention is by asking of each snapshot, one by one, whether
// something keeps it. It shares nothing with the package: it compares every snapshot
// with every other, and counts periods by arithmetic.
type model struct {
	policies retention.Policies
	entries  []retention.Entry
	now      time.Time
}

// kept are the ids of those that stay, in the entries' order.
func (m model) kept() []string {
	var ids []string
	for _, e := range m.entries {
		if m.keeps(e) {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

func (m model) keeps(e retention.Entry) bool {
	if e.Apart != "" || m.wanted(e) {
		return true
	}
	return slices.ContainsFunc(m.entries, func(o retention.Entry) bool {
		return o.Apart == "" && o.Run != "" && o.Run == e.Run && m.wanted(o)
	})
}

// wanted says whether e is kept for its own sake.
func (m model) wanted(e retention.Entry) bool {
	if e.Time.After(m.now) {
		return true
	}
	ofDisk := m.others(func(o retention.Entry) bool { return o.Disk == e.Disk && o.Clean })
	if e.Clean && !slices.ContainsFunc(ofDisk, func(o retention.Entry) bool { return newer(o, e) }) {
		return true
	}
	p := m.policy(e)
	if p.MaxAge > 0 && m.now.Sub(e.Time) > p.MaxAge {
		return false
	}
	return m.counted(p, e)
}

func (m model) policy(e retention.Entry) retention.Policy {
	for trigger, p := range m.policies.Own {
		if trigger == e.Trigger {
			return p
		}
	}
	return m.policies.General
}

// others are those that have come and are decided on.
func (m model) others(which func(retention.Entry) bool) []retention.Entry {
	var found []retention.Entry
	for _, o := range m.entries {
		if o.Apart == "" && !o.Time.After(m.now) && which(o) {
			found = append(found, o)
		}
	}
	return found
}

func (m model) counted(p retention.Policy, e retention.Entry) bool {
	if p.Last+p.Hourly+p.Daily+p.Weekly+p.Monthly+p.Yearly == 0 {
		return true
	}
	_, own := m.policies.Own[e.Trigger]
	group := m.others(func(o retention.Entry) bool {
		_, others := m.policies.Own[o.Trigger]
		return o.Disk == e.Disk && own == others && (!own || o.Trigger == e.Trigger)
	})
	ahead := 0
	for _, o := range group {
		if newer(o, e) {
			ahead++
		}
	}
	if ahead < max(p.Last, 1) {
		return true
	}
	return newestOf(group, e, p.Hourly, hours) || newestOf(group, e, p.Daily, days) || newestOf(group, e, p.Weekly, weeks) ||
		newestOf(group, e, p.Monthly, months) || newestOf(group, e, p.Yearly, years)
}

// newestOf says whether e is the best of its period, and that one of the newest.
func newestOf(group []retention.Entry, e retention.Entry, count int, period func(time.Time) int64) bool {
	later := map[int64]bool{}
	for _, o := range group {
		switch mine, others := period(e.Time), period(o.Time); {
		case others > mine:
			later[others] = true
		case others == mine && (o.Clean && !e.Clean || o.Clean == e.Clean && newer(o, e)):
			return false
		}
	}
	return len(later) < count
}

func newer(a, b retention.Entry) bool {
	return a.Time.After(b.Time) || a.Time.Equal(b.Time) && a.ID > b.ID
}

func hours(t time.Time) int64  { return t.Unix() / 3600 }
func days(t time.Time) int64   { return t.Unix() / 86400 }
func weeks(t time.Time) int64  { return (days(t) + 3) / 7 } // 1970 began on a Thursday
func months(t time.Time) int64 { return years(t)*12 + int64(t.UTC().Month()) }
func years(t time.Time) int64  { return int64(t.UTC().Year()) }
