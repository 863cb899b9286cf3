package agent

import (
	"fmt"
	"slices"
	"strings"
)

// Level is how far an instance is brought to rest before its snapshot.
type Level string

// The levels, in rising order of what they promise.
const (
	LevelNone   Level = "none"   // nothing is done
	LevelSync   Level = "sync"   // dirty pages are written out
	LevelFreeze Level = "freeze" // the filesystems are frozen
	LevelLock   Level = "lock"   // the jobs' lock scripts hold the application, then as freeze
	LevelStop   Level = "stop"   // the jobs are drained and stopped, then as freeze
)

// Levels lists every level in rising order.
func Levels() []Level {
	return []Level{LevelNone, LevelSync, LevelFreeze, LevelLock, LevelStop}
}

// ParseLevel reads a level's name.
func ParseLevel(name string) (Level, error) {
	if l := Level(name); slices.Contains(Levels(), l) {
		return l, nil
	}
	return "", fmt.Errorf("unknown level %q (one of %s)", name, joined(Levels()))
}

// Clean says whether a snapshot at this level holds more than a crash would
// have left.
func (l Level) Clean() bool { return l == LevelFreeze || l == LevelLock || l == LevelStop }

// jobs says whether the level brings the jobs themselves to rest.
func (l Level) jobs() bool { return l == LevelLock || l == LevelStop }

// Trigger is what made a run happen.
type Trigger string

// The triggers. A job update is no trigger: it is a hold by the director that
// finds the jobs stopped.
const (
	TriggerManual    Trigger = "manual"    // an operator, over a socket or the bus
	TriggerScheduled Trigger = "scheduled" // the instance's snapshot schedule
	TriggerSelf      Trigger = "self"      // the director's own VM
	TriggerDirector  Trigger = "director"  // a hold: the director's CPI call takes the snapshot
)

// Triggers lists every trigger.
func Triggers() []Trigger {
	return []Trigger{TriggerManual, TriggerScheduled, TriggerSelf, TriggerDirector}
}

// ParseTrigger reads a trigger's name.
func ParseTrigger(name string) (Trigger, error) {
	if t := Trigger(name); slices.Contains(Triggers(), t) {
		return t, nil
	}
	return "", fmt.Errorf("unknown trigger %q (one of %s)", name, joined(Triggers()))
}

func joined[S ~string](all []S) string {
	names := make([]string, 0, len(all))
	for _, one := range all {
		names = append(names, string(one))
	}
	return strings.Join(names, ", ")
}
