package systemd

import (
	"os"
	"path"
	"strings"
)

// ownUnit is the unit that this process is in, "" for none.
func ownUnit() string {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	return unitIn(string(text))
}

// unitIn finds the unit that a /proc/PID/cgroup names, in whichever hierarchy is
// systemd's: 0::/system.slice/quiesced.service. It is the outermost service or
// scope of the path; groups of its own and of other managers lie within.
func unitIn(text string) string {
	for line := range strings.Lines(text) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		if controllers != "" && controllers != "name=systemd" {
			continue
		}
		for name := range strings.SplitSeq(group, "/") {
			if ext := path.Ext(name); ext == ".service" || ext == ".scope" {
				return name
			}
		}
	}
	return ""
}
