package schedule

import "time"

// weekZero is the Monday that began week 0, in days since 1970.
var weekZero = time.Date(2018, 12, 31, 0, 0, 0, 0, time.UTC).Unix() / daySeconds

// month is one of a year.
type month struct {
	year   int
	month  time.Month
	starts int64        // as a clock shows it, in seconds since it showed the start of 1970
	first  time.Weekday // of its first day
	last   int          // its last day
}

func newMonth(year int, name time.Month) month {
	first := time.Date(year, name, 1, 0, 0, 0, 0, time.UTC)
	return month{year, name, first.Unix(), first.Weekday(), daysIn(year, name)}
}

// daysIn is how many days a month has: the day before the first of the next is its last.
func daysIn(year int, name time.Month) int {
	return time.Date(year, name+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

func (m month) next() month {
	if m.month == time.December {
		return newMonth(m.year+1, time.January)
	}
	return newMonth(m.year, m.month+1)
}

// daysOf is the days of a month on which the schedule runs.
func (s *Schedule) daysOf(m month) set {
	if s.months != 0 && !s.months.has(int(m.month)) {
		return 0
	}
	every := set(1)<<(m.last+1) - 2
	anyDay, anyWeekday := s.days == 0 && s.daysBack == 0, len(s.weekdays) == 0
	switch {
	case anyDay && anyWeekday:
		return every
	case anyWeekday:
		return every & s.monthdaysOf(m)
	case anyDay:
		return s.weekdaysOf(m)
	case s.bothDays:
		return s.monthdaysOf(m) & s.weekdaysOf(m)
	}
	return every & (s.monthdaysOf(m) | s.weekdaysOf(m))
}

// monthdaysOf may hold days that the month has not.
func (s *Schedule) monthdaysOf(m month) set {
	days := s.days
	for back := s.daysBack.from(1); back <= m.last; back = s.daysBack.from(back + 1) {
		days = days.with(m.last + 1 - back)
	}
	return days
}

func (s *Schedule) weekdaysOf(m month) set {
	var days set
	for _, w := range s.weekdays {
		for day := 1 + (int(w.day-m.first)+7)%7; day <= m.last; day += 7 {
			if w.suits(m, day) {
				days = days.with(day)
			}
		}
	}
	return days
}

// suits says whether a day of a month, which is of the right weekday, is one of those
// that are meant.
func (w weekday) suits(m month, day int) bool {
	switch {
	case w.every > 0:
		days := m.starts/daySeconds + int64(day-1) - weekZero
		week := floorDiv(days, 7)
		return floorMod(week-int64(w.plus), int64(w.every)) == 0
	case w.nth > 0:
		return w.nth == (day-1)/7+1
	case w.nth < 0:
		return -w.nth == (m.last-day)/7+1
	}
	return true
}

func floorDiv(a, b int64) int64 { return (a - floorMod(a, b)) / b }

func floorMod(a, b int64) int64 { return ((a % b) + b) % b }
