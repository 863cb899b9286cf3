package schedule

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// field says what may stand in a field.
type field struct {
	min, max int
	top      int      // may be written, though it is beyond max and means another
	digits   int      // at most
	names    []string // of the numbers from min
	back     bool     // numbers count from the end, too
}

var (
	secondField = field{min: 0, max: 59, top: 59, digits: 2}
	minuteField = field{min: 0, max: 59, top: 59, digits: 2}
	hourField   = field{min: 0, max: 23, top: 24, digits: 2}
	dayField    = field{min: 1, max: 31, top: 31, digits: 2, back: true}
	monthField  = field{min: 1, max: 12, top: 12, digits: 2, names: []string{
		"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
	}}
	weekdayField = field{min: 0, max: 6, top: 7, digits: 1, names: []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}}
)

// element is one of a list.
type element struct {
	from, to int
	single   bool // there is no to
	star     bool // there is neither
	step     int  // 0 for none
}

// elements takes a list apart. Commas may be repeated, at either end, too, with spaces
// between them and before those that nothing follows.
func elements(text string) ([]string, error) {
	var all []string
	spaced := false
	for part := range strings.SplitSeq(text, ",") {
		trimmed := strings.Trim(part, " \t")
		if trimmed == "" {
			continue
		}
		if spaced {
			return nil, fmt.Errorf("%s has a space before a comma", strconv.Quote(text))
		}
		spaced = trimmed != part
		all = append(all, trimmed)
	}
	if len(all) == 0 {
		return nil, errors.New("it is empty")
	}
	return all, nil
}

// parseAll is parse with every number where parse has none.
func (f field) parseAll(text string) (set, error) {
	all, err := f.parse(text)
	if err == nil && all == 0 {
		all = 1<<(f.max+1) - 1
	}
	return all, err
}

// parse reads a list of numbers that count from the start. It is empty if it says
// nothing.
func (f field) parse(text string) (set, error) {
	numbers, err := f.list(text)
	var all set
	for _, n := range numbers {
		if n > f.max {
			n = f.min // hour 24
		}
		all = all.with(n)
	}
	return all, err
}

// parseDays reads days of the month, those counted from the end apart.
func parseDays(text string) (front, back set, err error) {
	numbers, err := dayField.list(text)
	for _, n := range numbers {
		if n < 0 {
			back = back.with(-n)
		} else {
			front = front.with(n)
		}
	}
	return front, back, err
}

// list is the numbers that a list names, and none if an element is all of the range.
func (f field) list(text string) ([]int, error) {
	parts, err := elements(text)
	if err != nil {
		return nil, err
	}
	var all []int
	everything := false
	for _, part := range parts {
		e, err := f.element(part)
		if err != nil {
			return nil, err
		}
		numbers, err := f.expand(e)
		if err != nil {
			return nil, fmt.Errorf("%s %w", strconv.Quote(part), err)
		}
		everything = everything || numbers == nil
		all = append(all, numbers...)
	}
	if everything {
		return nil, nil
	}
	return all, nil
}

// element reads *, 5, 1-5, each with or without /2, or /2 alone.
func (f field) element(text string) (element, error) {
	var e element
	span, step, stepped := strings.Cut(text, "/")
	if stepped {
		n, ok := digits(step, 2)
		if !ok || n == 0 {
			return e, fmt.Errorf("%s has a step that is not a number from 1 to 99", strconv.Quote(text))
		}
		e.step = n
	}
	if e.star = span == "*" || span == "" && stepped; e.star {
		return e, nil
	}
	var err error
	// The sign of a number that counts from the end is no dash of a range.
	dash := strings.Index(span[min(1, len(span)):], "-") + 1
	if dash == 0 {
		e.single = true
		e.from, err = f.number(span)
		return e, err
	}
	if e.from, err = f.number(span[:dash]); err != nil {
		return e, err
	}
	e.to, err = f.number(span[dash+1:])
	return e, err
}

func (f field) number(text string) (int, error) {
	lower := strings.ToLower(text)
	if i := slices.Index(f.names, lower); i >= 0 {
		return f.min + i, nil
	}
	sign := 1
	if f.back {
		if lower == "l" || lower == "last" {
			return -1, nil
		}
		if after, negative := strings.CutPrefix(lower, "-"); negative {
			lower, sign = after, -1
		}
	}
	n, ok := digits(lower, f.digits)
	if !ok || n < f.min || n > f.top {
		return 0, fmt.Errorf("%s is not %s", strconv.Quote(text), f.wants())
	}
	return sign * n, nil
}

func (f field) wants() string {
	text := fmt.Sprintf("a number from %d to %d", f.min, f.top)
	if f.back {
		text += ", -1 to -31 or L"
	}
	if f.names != nil {
		text += fmt.Sprintf(" or a name from %s to %s", f.names[0], f.names[len(f.names)-1])
	}
	return text
}

// digits reads a number of a few digits.
func digits(text string, most int) (int, bool) {
	if text == "" || len(text) > most || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	return n, err == nil
}

// expand is the numbers that an element names, and none if those are the whole range.
func (f field) expand(e element) ([]int, error) {
	switch {
	case e.star:
		e.from, e.to = f.min, f.max
	case e.single && e.step == 0:
		return []int{e.from}, nil
	case e.single, e.to < 0 && e.from > 0:
		e.to = f.max
	}
	if e.from == f.min && e.to == f.max && e.step < 2 {
		return nil, nil
	}
	low, high := f.min, f.max
	if e.from < 0 {
		low, high = -f.max, -1
	}
	if e.to > 0 && e.from < 0 {
		return nil, errors.New("goes from a day counted from the end to one that is not")
	}
	return around(e, low, high), nil
}

// around walks from an element's start to its end, from the highest number on to the
// lowest where it must, and takes what it steps on.
func around(e element, low, high int) []int {
	var all []int
	for n, i := e.from, 0; ; n, i = n+1, i+1 {
		if n > high && i > 0 {
			n = low
			if e.to > high { // hour 24 is the lowest of the next round
				e.to -= high + 1 - low
			}
		}
		if e.step < 2 || i%e.step == 0 {
			all = append(all, n)
		}
		if n == e.to {
			return all
		}
	}
}
