package monit

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// status is what is used of /_status2?format=xml.
type status struct {
	Version     string  `xml:"version,attr"`
	Incarnation string  `xml:"incarnation,attr"` // of one run of the daemon
	Services    []entry `xml:"services>service"`
	Groups      []group `xml:"servicegroups>servicegroup"`
}

type group struct {
	Name     string   `xml:"name,attr"`
	Services []string `xml:"service"`
}

// entry is a service as monit shows it.
type entry struct {
	Name    string `xml:"name,attr"`
	Type    int    `xml:"type"`
	Status  int    `xml:"status"`         // bits of what fails
	Message string `xml:"status_message"` // 5.2.5 has it
	Monitor int    `xml:"monitor"`        // 0 no, 1 yes, 2 it has not been looked at yet; and waiting
	Pending int    `xml:"pendingaction"`  // 0 is none
	PID     int    `xml:"pid"`            // 0 if it is not monitored
}

const typeProcess = 3

// waiting is set in entry.Monitor between the rounds of a check "every N cycles".
const waiting = 4

// Bits of entry.Status.
const (
	doesNotExist = 0x200
	execFailed   = 0x1000
)

// failures are the names of the bits, as monit's events have them.
var failures = []string{
	"checksum failed", "resource limit matched", "timeout", "timestamp failed", "size failed",
	"connection failed", "permission failed", "uid failed", "gid failed", "does not exist",
	"invalid type", "data access error", "execution failed", "filesystem flags failed", "icmp failed",
	"content failed", "monit instance failed", "action done", "pid failed", "ppid failed", "heartbeat failed",
}

// actions are the names of pending actions, by number.
var actions = []string{"", "alert", "restart", "stop", "exec", "unmonitor", "start", "monitor"}

// parse reads a status. Monit writes ISO-8859-1, whatever bytes its files hold.
func parse(b []byte) (*status, error) {
	d := xml.NewDecoder(bytes.NewReader(b))
	d.CharsetReader = func(charset string, in io.Reader) (io.Reader, error) {
		if !strings.EqualFold(charset, "ISO-8859-1") {
			return nil, fmt.Errorf("unknown charset %q", charset)
		}
		return latin1(in)
	}
	var s status
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("cannot read monit's status: %w", err)
	}
	return &s, nil
}

// latin1 is in as UTF-8: each byte is the code point of that number.
func latin1(in io.Reader) (io.Reader, error) {
	b, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	var out strings.Builder
	for _, c := range b {
		out.WriteRune(rune(c))
	}
	return strings.NewReader(out.String()), nil
}

// of are the process services of a group, by name.
func (s *status) of(name string) map[string]entry {
	members := map[string]bool{}
	for _, g := range s.Groups {
		if g.Name != name {
			continue
		}
		for _, service := range g.Services {
			members[service] = true
		}
	}
	found := map[string]entry{}
	for _, e := range s.Services {
		e.Monitor &^= waiting
		if e.Type == typeProcess && members[e.Name] {
			found[e.Name] = e
		}
	}
	return found
}

// state of a service, lives says whether a process of it is known to run.
func (e entry) state(lives bool) jobs.State {
	switch {
	case e.Pending != 0:
		return jobs.Changing
	case e.Monitor == 0 && lives:
		return jobs.Unmonitored
	case e.Monitor == 0:
		return jobs.Stopped
	case e.Status&execFailed != 0, e.Monitor == 1 && e.Status != 0:
		return jobs.Failing
	case e.Monitor == 1 && e.PID > 0:
		return jobs.Running
	default:
		return jobs.Changing
	}
}

// pendingAction is the name of the action that is pending, "" for none.
func (e entry) pendingAction() string {
	if e.Pending < 0 || e.Pending >= len(actions) {
		return "unknown action " + strconv.Itoa(e.Pending)
	}
	return actions[e.Pending]
}

// String is what monit says, in its words.
func (e entry) String() string {
	words := []string{[]string{"not monitored", "monitored", "initializing"}[min(max(e.Monitor, 0), 2)]}
	if e.Pending != 0 {
		words = append(words, e.pendingAction()+" pending")
	}
	for i, name := range failures {
		if e.Status&(1<<i) != 0 {
			words = append(words, name)
		}
	}
	if e.PID > 0 {
		words = append(words, "pid "+strconv.Itoa(e.PID))
	}
	if m := strings.TrimSpace(e.Message); m != "" && !slices.Contains(words, m) {
		words = append(words, m)
	}
	return strings.Join(words, ", ")
}
