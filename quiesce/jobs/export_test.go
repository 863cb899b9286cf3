package jobs

import "time"

// For the tests of the package: the parsers, and how what scripts have started is
// known.

// Drained is what a drain script that ended well asks for by what it printed.
func Drained(printed string) (time.Duration, bool, error) { return drained(printed, nil) }

// ParseMetadata lists the jobs before which one is to be locked, and says whether
// it is skipped.
func ParseMetadata(text string) (before []string, skip bool, err error) {
	m, err := parseMetadata(text, false)
	for _, one := range m.Before {
		before = append(before, one.Job)
	}
	return before, m.Skip, err
}

// Cgroups are the control groups that scripts of a layout have at the moment.
func (l Layout) Cgroups() []string {
	var all []string
	for _, g := range l.leftCgroups() {
		all = append(all, g.path)
	}
	return all
}

var CgroupMount = cgroupMount
