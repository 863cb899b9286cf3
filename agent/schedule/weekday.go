package schedule

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// mostDigits is how long the numbers after a % may be. More of them would be more weeks
// than there are.
const mostDigits = 6

// parseWeekdays reads the weekday field. It is empty if it says nothing.
func parseWeekdays(text string) ([]weekday, error) {
	parts, err := elements(text)
	if err != nil {
		return nil, err
	}
	var all []weekday
	for _, part := range parts {
		some, err := parseWeekday(part)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

func parseWeekday(text string) ([]weekday, error) {
	if day, nth, ok := strings.Cut(text, "#"); ok {
		return parseNth(text, day, nth)
	}
	if day, weeks, ok := strings.Cut(text, "%"); ok {
		return parseWeeks(text, day, weeks)
	}
	e, err := weekdayField.element(text)
	if err != nil {
		return nil, err
	}
	return e.weekdays(), nil
}

// weekdays is not expand: a week has no end, a step from a single day goes nowhere, and
// what names every day still says something, unlike a star.
func (e element) weekdays() []weekday {
	switch {
	case e.star && e.step == 0:
		return nil
	case e.star:
		e.to = weekdayField.max
	case e.single:
		e.to = e.from
	case e.from > e.to:
		e.to += 7
	}
	var all []weekday
	for day := e.from; day <= e.to; day += max(e.step, 1) {
		all = append(all, weekday{day: time.Weekday(day % 7)})
	}
	return all
}

// parseNth reads mon#2, mon#-1 and mon#L.
func parseNth(text, day, nth string) ([]weekday, error) {
	n, err := weekdayField.number(day)
	if err != nil {
		return nil, err
	}
	w := weekday{day: time.Weekday(n % 7), nth: -1}
	if lower := strings.ToLower(nth); lower == "l" || lower == "last" {
		return []weekday{w}, nil
	}
	after, negative := strings.CutPrefix(nth, "-")
	count, ok := digits(after, 1)
	if !ok || count < 1 || count > 5 {
		return nil, fmt.Errorf("%s has a # that is followed by no number from 1 to 5, -1 to -5 or L", strconv.Quote(text))
	}
	if w.nth = count; negative {
		w.nth = -count
	}
	return []weekday{w}, nil
}

// parseWeeks reads mon%2 and mon%2+1.
func parseWeeks(text, day, weeks string) ([]weekday, error) {
	n, err := weekdayField.number(day)
	if err != nil {
		return nil, err
	}
	w := weekday{day: time.Weekday(n % 7)}
	every, plus, more := strings.Cut(weeks, "+")
	var ok bool
	if w.every, ok = digits(every, mostDigits); !ok || w.every == 0 {
		return nil, fmt.Errorf("%s has a %% that is followed by no number of weeks", strconv.Quote(text))
	}
	if w.plus, ok = digits(plus, mostDigits); more && !ok {
		return nil, fmt.Errorf("%s has a + that is followed by no number of weeks", strconv.Quote(text))
	}
	return []weekday{w}, nil
}
