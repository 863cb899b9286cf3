package schedule

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
	_ "time/tzdata" // for a VM that has no zone database of its own
)

// What a zone looks like. Only what looks like one is told from a weekday.
var (
	offsetShape = regexp.MustCompile(`^([+-])([01][0-9]|2[0-4]):?(00|15|30|45)$`)
	nameShape   = regexp.MustCompile(`^[A-Z][a-zA-Z0-9+-]+(/[A-Z][a-zA-Z0-9+_-]+){0,2}$`)
)

func looksLikeZone(text string) bool {
	return offsetShape.MatchString(text) || nameShape.MatchString(text)
}

func parseZone(text string) (*time.Location, error) {
	if parts := offsetShape.FindStringSubmatch(text); parts != nil {
		return parseOffset(text, parts[1], parts[2], parts[3])
	}
	if zone, err := time.LoadLocation(text); err == nil && nameShape.MatchString(text) && text != "Local" {
		return zone, nil
	}
	return nil, fmt.Errorf("%s is neither the name of a zone (America/New_York) nor an offset (+05:45)", strconv.Quote(text))
}

// parseOffset reads an offset. The sign is that of the hours: rufus-scheduler takes
// -00:30 for +00:30.
func parseOffset(text, sign, hours, minutes string) (*time.Location, error) {
	h, _ := strconv.Atoi(hours)
	m, _ := strconv.Atoi(minutes)
	if h > 11 {
		return nil, fmt.Errorf("%s is an offset of twelve hours or more", strconv.Quote(text))
	}
	seconds := h*3600 + m*60
	if sign == "-" && h > 0 {
		seconds = -seconds
	}
	return time.FixedZone(text, seconds), nil
}
