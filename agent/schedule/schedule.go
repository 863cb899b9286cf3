package schedule

import (
	"math"
	"time"

	"github.com/robfig/cron/v3"
)

// Schedule says when something is to run. It does not change, and any number of
// goroutines may use it.
type Schedule struct {
	text string
	zone *time.Location

	seconds, minutes, hours set
	months                  set // empty for all
	days                    set // of the month, counted from its start
	daysBack                set // of the month, counted from its end: 1 is the last
	weekdays                []weekday
	bothDays                bool // a day has to suit days and weekdays, not either
}

var _ cron.Schedule = (*Schedule)(nil)

// weekday is an element of the weekday field: a day of every week, or of some.
type weekday struct {
	day   time.Weekday
	nth   int // the nth of its month, from the end if negative; 0 for any
	every int // only in weeks of which every divides the number less offset; 0 for any
	plus  int
}

// Parse reads a schedule, in UTC if it names no zone. An error names the field that is
// wrong, and what is wrong with it.
func Parse(text string) (*Schedule, error) { return ParseIn(text, time.UTC) }

// String is the text that was parsed.
func (s *Schedule) String() string { return s.text }

// Zone is where the clock hangs that the schedule goes by.
func (s *Schedule) Zone() *time.Location { return s.zone }

const (
	daySeconds  = 24 * 60 * 60
	quarterHour = 15 * 60

	// horizonYears is how far ahead Next looks. Dates and weekdays repeat after 400 years.
	horizonYears = 400
)

// The seconds, since 1970, between which Next finds anything: times of the years 1 to
// 9999, which RFC 3339 can write.
var (
	firstSecond = time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC).Unix()
	lastSecond  = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC).Unix()
)

// Next is the first whole second after a time at which the schedule runs, in the zone
// of that time. It is the zero time if there is none within 400 years.
func (s *Schedule) Next(after time.Time) time.Time {
	second := max(after.Unix()+1, firstSecond)
	if second > lastSecond {
		return time.Time{}
	}
	end := min(time.Unix(second, 0).UTC().AddDate(horizonYears, 0, 0).Unix(), lastSecond)
	for second < end {
		// Until the zone's clocks are next changed, what they show is a time and no other.
		offset, changed := s.clocks(second)
		until := min(changed, end)
		if found, ok := s.onClock(second+offset, until+offset); ok {
			return time.Unix(found-offset, 0).In(after.Location())
		}
		second = until
	}
	return time.Time{}
}

// clocks is by how many seconds the zone's clocks are ahead of UTC at a second, and when
// they may next be changed, which is later.
func (s *Schedule) clocks(second int64) (offset, changed int64) {
	at := time.Unix(second, 0).In(s.zone)
	_, ahead := at.Zone()
	_, end := at.ZoneBounds()
	switch {
	case end.IsZero():
		return int64(ahead), math.MaxInt64
	case end.Unix() <= second:
		// Go forgets the last day of a leap year where a rule goes on from the end of a
		// zone's table. Rules change clocks at a quarter of an hour, if not at a full one.
		return int64(ahead), second - floorMod(second, quarterHour) + quarterHour
	}
	return int64(ahead), end.Unix()
}

// onClock is the first second that suits, from one until before another. Both are what
// a clock shows, as seconds since it showed the start of 1970.
func (s *Schedule) onClock(from, until int64) (int64, bool) {
	start := time.Unix(from, 0).UTC()
	year, month, day := start.Date()
	clock := start.Hour()*3600 + start.Minute()*60 + start.Second()
	for m := newMonth(year, month); m.starts < until; m = m.next() {
		days := s.daysOf(m)
		for found := days.from(day); found <= m.last; found = days.from(found + 1) {
			if found > day {
				clock = 0
			}
			if at, ok := s.timeOfDay(clock); ok {
				second := m.starts + int64(found-1)*daySeconds + int64(at)
				return second, second < until
			}
		}
		day, clock = 1, 0
	}
	return 0, false
}

// timeOfDay is the first second of a day that suits, from the given one.
func (s *Schedule) timeOfDay(from int) (int, bool) {
	for hour := s.hours.from(from / 3600); hour < 24; hour = s.hours.from(hour + 1) {
		from = max(from, hour*3600)
		for minute := s.minutes.from(from / 60 % 60); minute < 60; minute = s.minutes.from(minute + 1) {
			from = max(from, hour*3600+minute*60)
			if second := s.seconds.from(from % 60); second < 60 {
				return hour*3600 + minute*60 + second, true
			}
		}
	}
	return 0, false
}
