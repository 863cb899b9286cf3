package front

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/quiesced/quiesced/agent"
)

// Policy is what is done about a snapshot for which the VM cannot be brought to
// rest.
type Policy string

// The policies.
const (
	Degrade Policy = "degrade" // it is taken all the same
	Skip    Policy = "skip"    // it is not taken, and the director goes on
	Fail    Policy = "fail"    // it is not taken, and the director's call fails
)

// ParsePolicy reads a policy's name.
func ParsePolicy(name string) (Policy, error) {
	switch p := Policy(name); p {
	case Degrade, Skip, Fail:
		return p, nil
	}
	return "", fmt.Errorf("unknown policy %q (one of degrade, skip, fail)", name)
}

// Config says how snapshots are taken.
type Config struct {
	Level  agent.Level
	Levels []Rule // the first that matches decides in place of Level
	Policy Policy

	Lease           time.Duration // after which a VM that hears nothing sets itself going
	QuiesceTimeout  time.Duration // for bringing a VM to rest
	NoDaemonTimeout time.Duration // for a daemon's answer to a question

	// Release is a regular expression: a line of the CPI's stderr that it matches says
	// that the point in time is fixed. {disk_cid} stands for the disk; "" is none.
	Release string

	// AddMetadata has the CPI told the level and the hold's id.
	AddMetadata bool
}

// Rule gives snapshots their level. An empty field matches all.
type Rule struct {
	Deployment string
	Job        string
	Tags       map[string]string
	Level      agent.Level
}

func (r Rule) matches(s Snapshot) bool {
	for key, value := range r.Tags {
		if got, ok := s.Tags[key]; !ok || got != value {
			return false
		}
	}
	return (r.Deployment == "" || r.Deployment == s.Deployment) && (r.Job == "" || r.Job == s.Job)
}

// level is how far the VM is brought to rest. The director's own goes no further
// than to freeze: who asks is one of its jobs.
func (c Config) level(s Snapshot) agent.Level {
	level := c.Level
	for _, rule := range c.Levels {
		if rule.matches(s) {
			level = rule.Level
			break
		}
	}
	if s.AgentID == Self && (level == agent.LevelLock || level == agent.LevelStop) {
		return agent.LevelFreeze
	}
	return level
}

// presets are patterns by name. That the point in time is fixed when the line
// appears depends on the backend: it does for EBS.
var presets = map[string]string{
	"aws": `snapshot '[^']+' of volume '{disk_cid}' created`,
}

const diskCID = "{disk_cid}"

// ParseRelease reads a preset's name or a pattern, which has to be bound to the
// disk: a CPI that prints its request could else be made to end a hold by a tag in
// it.
func ParseRelease(text string) (string, error) {
	if preset, ok := presets[text]; ok || text == "" {
		return preset, nil
	}
	if !strings.Contains(text, diskCID) {
		return "", errors.New("needs {disk_cid} in it, which stands for the disk's CID, or is \"aws\"")
	}
	if _, err := regexp.Compile(strings.ReplaceAll(text, diskCID, "x")); err != nil {
		return "", err
	}
	return text, nil
}

// release is the pattern for a disk, nil for none.
func (c Config) release(disk string) (*regexp.Regexp, error) {
	if c.Release == "" {
		return nil, nil //nolint:nilnil // no pattern is nothing wrong
	}
	return regexp.Compile(strings.ReplaceAll(c.Release, diskCID, regexp.QuoteMeta(disk)))
}
