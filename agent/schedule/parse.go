package schedule

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// maxLength is as much as fugit reads, in bytes.
const maxLength = 256

// nicknames stand for the fields of a schedule.
var nicknames = map[string]string{
	"@yearly":   "0 0 1 1 *",
	"@annually": "0 0 1 1 *",
	"@monthly":  "0 0 1 * *",
	"@weekly":   "0 0 * * 0",
	"@daily":    "0 0 * * *",
	"@midnight": "0 0 * * *",
	"@noon":     "0 12 * * *",
	"@hourly":   "0 * * * *",
}

// ParseIn is Parse for a schedule that is in another zone than UTC if it names none.
func ParseIn(text string, zone *time.Location) (*Schedule, error) {
	s := &Schedule{text: text, zone: zone}
	if err := s.parse(text); err != nil {
		if len(text) > maxLength {
			text = text[:maxLength] + "…"
		}
		return nil, fmt.Errorf("cannot read the schedule %q: %w", text, err)
	}
	return s, nil
}

func (s *Schedule) parse(text string) error {
	if len(text) > maxLength {
		return fmt.Errorf("it is longer than %d bytes", maxLength)
	}
	text, err := spellOut(strings.Trim(text, " \t\n\v\f\r\x00"))
	if err != nil {
		return err
	}
	fields, zone, err := split(text)
	if err != nil {
		return err
	}
	if err := s.parseFields(fields); err != nil {
		return err
	}
	if zone != "" {
		if s.zone, err = parseZone(zone); err != nil {
			return fmt.Errorf("zone: %w", err)
		}
	}
	return s.possible()
}

// spellOut puts fields in the place of a nickname.
func spellOut(text string) (string, error) {
	if !strings.HasPrefix(text, "@") {
		return text, nil
	}
	name, rest := text, ""
	if space := strings.IndexAny(text, " \t\n\v\f\r"); space >= 0 {
		name, rest = text[:space], strings.TrimLeft(text[space:], " \t\n\v\f\r")
	}
	fields, ok := nicknames[name]
	if !ok {
		return "", fmt.Errorf("%s is not one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @noon and @hourly", strconv.Quote(name))
	}
	return strings.TrimRight(fields+" "+rest, " "), nil
}

// between is what stands between two fields. Spaces before a comma do not.
var between = regexp.MustCompile(`[ \t]+([^ \t,]|$)`)

// split tells the fields of a schedule, five or six, and the zone after them apart.
func split(text string) (fields []string, zone string, err error) {
	gap := ""
	for rest := text; rest != ""; {
		at := between.FindStringSubmatchIndex(rest)
		if at == nil {
			fields, rest = append(fields, rest), ""
			continue
		}
		fields, gap, rest = append(fields, rest[:at[0]]), rest[at[0]:at[2]], rest[at[2]:]
	}
	last := len(fields) - 1
	if len(fields) == 7 || len(fields) == 6 && looksLikeZone(fields[last]) && !isWeekdays(fields[last]) {
		if strings.Contains(gap, "\t") {
			return nil, "", fmt.Errorf("zone: %s stands after a tab, not after spaces", strconv.Quote(fields[last]))
		}
		fields, zone = fields[:last], fields[last]
	}
	switch len(fields) {
	case 0:
		return nil, "", errors.New("it is empty")
	case 5, 6:
		return fields, zone, nil
	}
	return nil, "", fmt.Errorf("it has %d fields, not five, or six with seconds", len(fields))
}

func isWeekdays(text string) bool {
	_, err := parseWeekdays(text)
	return err == nil
}

func (s *Schedule) parseFields(fields []string) error {
	s.seconds = set(0).with(0)
	if len(fields) == 6 {
		var err error
		if s.seconds, err = secondField.parseAll(fields[0]); err != nil {
			return fmt.Errorf("second: %w", err)
		}
		fields = fields[1:]
	}
	fields[2], s.bothDays = cutAnd(fields[2], s.bothDays)
	fields[4], s.bothDays = cutAnd(fields[4], s.bothDays)
	var errs [5]error
	s.minutes, errs[0] = minuteField.parseAll(fields[0])
	s.hours, errs[1] = hourField.parseAll(fields[1])
	s.days, s.daysBack, errs[2] = parseDays(fields[2])
	s.months, errs[3] = monthField.parse(fields[3])
	s.weekdays, errs[4] = parseWeekdays(fields[4])
	for i, name := range []string{"minute", "hour", "day of month", "month", "weekday"} {
		if errs[i] != nil {
			return fmt.Errorf("%s: %w", name, errs[i])
		}
	}
	return nil
}

// cutAnd takes the & from the end of a field that may have it.
func cutAnd(text string, before bool) (string, bool) {
	text, found := strings.CutSuffix(text, "&")
	return text, before || found
}

// longest is how many days each month has in a leap year.
var longest = [...]int{1: 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

// possible leaves out the months that have none of the days, for weekdays, too, as
// rufus-scheduler does, and refuses a schedule that never runs.
func (s *Schedule) possible() error {
	if s.months != 0 && (s.days != 0 || s.daysBack != 0) {
		var possible set
		for m := s.months.from(1); m <= 12; m = s.months.from(m + 1) {
			if s.daysBack != 0 || s.days.from(1) <= longest[m] {
				possible = possible.with(m)
			}
		}
		if s.months = possible; s.months == 0 {
			return errors.New("day of month: none of the months has such a day")
		}
	}
	if s.Next(time.Unix(0, 0)).IsZero() {
		return errors.New("day of month and weekday: there is never such a day")
	}
	return nil
}
