package schedule_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// clock is what a zone's clocks and calendars show at a second.
type clock struct {
	unix                                      int64
	second, minute, hour, day, month, weekday int
	last                                      int // day of the month
	week                                      int // since Monday, 3 January 2000, 991 weeks before week 0
}

func showing(unix int64, zone *time.Location) clock {
	t := time.Unix(unix, 0).In(zone)
	noon := time.Date(t.Year(), t.Month(), t.Day(), 12, 0, 0, 0, time.UTC)
	week := noon.Sub(time.Date(2000, 1, 3, 0, 0, 0, 0, time.UTC)) / (7 * 24 * time.Hour)
	return clock{
		unix: unix, second: t.Second(), minute: t.Minute(), hour: t.Hour(), day: t.Day(),
		month: int(t.Month()), weekday: int(t.Weekday()), week: int(week),
		last: time.Date(t.Year(), t.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day(),
	}
}

// drawn is a part of a schedule at random, with what it means: the plain words of the
// package's documentation, not a way to find the next time.
type drawn struct {
	text string
	runs func(clock) bool
	any  bool // it is a star
}

// pick draws a list of one to three of what element draws, or a star.
func pick(r *rand.Rand, stars float64, element func(*rand.Rand) drawn) drawn {
	if r.Float64() < stars {
		return drawn{"*", func(clock) bool { return true }, true}
	}
	all := make([]drawn, 1+r.IntN(3))
	texts := make([]string, len(all))
	for i := range all {
		all[i] = element(r)
		texts[i] = all[i].text
	}
	return drawn{text: strings.Join(texts, ","), runs: func(c clock) bool {
		for _, d := range all {
			if d.runs(c) {
				return true
			}
		}
		return false
	}}
}

// number draws elements of numbers from low to high, which shown finds on a clock.
func number(low, high int, shown func(clock) int, write func(int) string) func(*rand.Rand) drawn {
	size := high - low + 1
	return func(r *rand.Rand) drawn {
		from, span, step := low+r.IntN(size), r.IntN(size-1), 2+r.IntN(7)
		to := low + (from-low+span)%size
		// away is how far past from a number is, on around the end.
		away := func(c clock) int { return (shown(c) - from + size) % size }
		switch r.IntN(6) {
		case 0:
			return drawn{text: fmt.Sprintf("*/%d", step), runs: func(c clock) bool { return (shown(c)-low)%step == 0 }}
		case 1:
			return drawn{text: fmt.Sprintf("%s-%s", write(from), write(to)), runs: func(c clock) bool { return away(c) <= span }}
		case 2:
			return drawn{text: fmt.Sprintf("%s-%s/%d", write(from), write(to), step), runs: func(c clock) bool { return away(c) <= span && away(c)%step == 0 }}
		case 3:
			return drawn{text: fmt.Sprintf("%s/%d", write(from), step), runs: func(c clock) bool { return shown(c) >= from && (shown(c)-from)%step == 0 }}
		}
		return drawn{text: write(from), runs: func(c clock) bool { return shown(c) == from }}
	}
}

func plain(n int) string { return fmt.Sprint(n) }

func name(names string) func(int) string {
	return func(n int) string { return strings.Fields(names)[n] }
}

var (
	drawSecond = number(0, 59, func(c clock) int { return c.second }, plain)
	drawMinute = number(0, 59, func(c clock) int { return c.minute }, plain)
	drawHour   = number(0, 23, func(c clock) int { return c.hour }, plain)
	drawMonth  = number(1, 12, func(c clock) int { return c.month }, name("- jan FEB mar Apr may jun jul aug sep oct nov Dec"))
	drawFront  = number(1, 28, func(c clock) int { return c.day }, func(n int) string { return fmt.Sprintf("%02d", n) })
)

// drawDay draws days of the month that every month has.
func drawDay(r *rand.Rand) drawn {
	from := 1 + r.IntN(28)
	to := 1 + r.IntN(from)
	back := func(c clock) int { return c.last + 1 - c.day }
	switch r.IntN(5) {
	case 0:
		return drawn{text: []string{"L", "last", "-1"}[r.IntN(3)], runs: func(c clock) bool { return back(c) == 1 }}
	case 1:
		return drawn{text: fmt.Sprint(-from), runs: func(c clock) bool { return back(c) == from }}
	case 2:
		return drawn{text: fmt.Sprintf("%d-%d", -from, -to), runs: func(c clock) bool { return back(c) <= from && back(c) >= to }}
	}
	front := drawFront(r)
	for strings.ContainsAny(front.text, "-/") { // these go on to the 31st
		front = drawFront(r)
	}
	return front
}

func drawWeekday(r *rand.Rand) drawn {
	day, span, step := r.IntN(7), r.IntN(7), 1+r.IntN(4)
	write := []func(int) string{plain, name("7 mon TUE wed thu Fri sat"), name("sun Mon tue wed thu fri sat")}[r.IntN(3)]
	nth := 1 + r.IntN(5)
	away := func(c clock) int { return (c.weekday - day + 7) % 7 }
	switch r.IntN(7) {
	case 0:
		if write(day) == "7" {
			return drawn{text: "7", runs: func(c clock) bool { return c.weekday == 0 }}
		}
		return drawn{text: fmt.Sprintf("%s-%s", write(day), plain((day+span)%7)), runs: func(c clock) bool { return away(c) <= span }}
	case 1:
		return drawn{text: fmt.Sprintf("*/%d", step), runs: func(c clock) bool { return c.weekday%step == 0 }}
	case 2:
		return drawn{text: fmt.Sprintf("%s#%d", write(day), nth), runs: func(c clock) bool { return away(c) == 0 && (c.day+6)/7 == nth }}
	case 3:
		return drawn{text: fmt.Sprintf("%s#-%d", write(day), nth), runs: func(c clock) bool { return away(c) == 0 && (c.last-c.day)/7+1 == nth }}
	case 4:
		return drawn{text: fmt.Sprintf("%s#L", write(day)), runs: func(c clock) bool { return away(c) == 0 && c.day > c.last-7 }}
	case 5:
		return drawn{text: fmt.Sprintf("%s%%%d+%d", write(day), step, nth), runs: func(c clock) bool { return away(c) == 0 && (c.week-991-nth)%step == 0 }}
	}
	return drawn{text: write(day), runs: func(c clock) bool { return away(c) == 0 }}
}

// draw draws a schedule, with a field for seconds or at second 0.
func draw(r *rand.Rand, seconds bool) drawn {
	minute, hour := pick(r, 0.3, drawMinute), pick(r, 0.4, drawHour)
	day, month, weekday := pick(r, 0.6, drawDay), pick(r, 0.8, drawMonth), pick(r, 0.5, drawWeekday)
	second := drawn{text: "0", runs: func(c clock) bool { return c.second == 0 }}
	if seconds {
		second = pick(r, 0.2, drawSecond)
	}
	both, and := r.IntN(4) == 0, ""
	if both {
		and = "&"
	}
	text := fmt.Sprintf("%s %s %s%s %s %s", minute.text, hour.text, day.text, and, month.text, weekday.text)
	if seconds || r.IntN(2) == 0 {
		text = second.text + " " + text
	}
	return drawn{text: text, runs: func(c clock) bool {
		onDay := day.runs(c) && weekday.runs(c)
		if !both && !day.any && !weekday.any {
			onDay = day.runs(c) || weekday.runs(c)
		}
		return second.runs(c) && minute.runs(c) && hour.runs(c) && month.runs(c) && onDay
	}}
}
