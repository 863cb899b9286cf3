package agent

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/quiesced/quiesced/quiesce"
)

// Budgets bound the steps of a run.
type Budgets struct {
	PreSync  time.Duration // writing out before the freeze, and the CPI's getting ready
	Frozen   time.Duration // from before the first freeze to the last thaw
	Snapshot time.Duration // from the CPI's being told to its answer
	Resume   time.Duration // undoing
}

// window is how long a freeze may last: an answer that would come too late to
// count is not waited for in it.
func (b Budgets) window() time.Duration { return min(b.Frozen, b.Snapshot) }

// Settings is what the operator configured.
type Settings struct {
	Enabled      bool // enable_snapshots
	Instance     Instance
	Disks        []quiesce.Disk
	Levels       map[Trigger]Level
	AllowDegrade bool
	Budgets      Budgets
	StateDir     string

	// ReleaseOnStderr matches a line of the CPI's stderr that says that the point
	// in time is fixed; {disk_cid} in it stands for the disk's CID. Empty for none.
	ReleaseOnStderr string

	// CPIFreezes says that the CPI freezes by itself, as those do that snapshot
	// through device-mapper: a freeze of ours would make it fail.
	CPIFreezes bool
	Depends    []quiesce.Dependency // what the daemon needs while a filesystem is frozen
}

// ActionKind says what an action does.
type ActionKind string

// The kinds of action, in the order in which a plan has them.
const (
	ActStartCPI ActionKind = "start CPI" // start its process, which waits for its last byte
	ActWriteOut ActionKind = "write out" // syncfs
	ActFreeze   ActionKind = "freeze"    // FIFREEZE
	ActSnapshot ActionKind = "snapshot"  // give the CPI its last byte, wait for its answer
)

// undoneBy names the undo of each kind; what has none leaves nothing behind.
var undoneBy = map[ActionKind]string{
	ActStartCPI: "end the process unless it was told to go on",
	ActFreeze:   "thaw",
}

// Action is one step of a plan. It is data: what it did or intended is read
// back from the journal by whoever resumes.
type Action struct {
	Kind   ActionKind
	Target string // disk CID or mount point
	Budget time.Duration
}

// Undo names what resuming does about the action, "" if nothing.
func (a Action) Undo() string { return undoneBy[a.Kind] }

// Plan is what a run is going to do.
type Plan struct {
	Asked       Level
	Level       Level  // what the actions reach; less than asked only with AllowDegrade
	Degraded    string // why it is less
	Disks       []quiesce.Disk
	Filesystems []quiesce.Filesystem // to be written out, and frozen at level freeze and above
	CPIFreezes  bool                 // the freezing is left to the CPI
	Notes       []string             // what a reader should know: filesystems passed over
	Actions     []Action
}

// Freezes says whether we freeze anything.
func (p *Plan) Freezes() bool {
	return p.Level.Clean() && !p.CPIFreezes && len(p.Filesystems) > 0
}

// newPlan decides. It reads nothing and changes nothing: on is what a survey
// found on the disks. The error is a *RefusedError.
func newPlan(r Request, s *Settings, disks []quiesce.Disk, on *quiesce.Contents) (*Plan, error) {
	if len(disks) == 0 {
		return nil, refuse("disks", "this instance has no persistent disk")
	}
	p := &Plan{Asked: r.Level, Level: r.Level, Disks: disks, CPIFreezes: s.CPIFreezes}
	if err := p.reach(r, on.Filesystems); err != nil {
		return nil, err
	}
	p.choose(on)
	p.list(s.Budgets)
	return p, nil
}

// reach lowers the level to what can be reached, if the request allows it.
func (p *Plan) reach(r Request, fs []quiesce.Filesystem) error {
	steps := []struct {
		from, to Level
		because  error
	}{
		{LevelStop, LevelFreeze, noJobs(LevelStop)},
		{LevelLock, LevelFreeze, noJobs(LevelLock)},
		{LevelFreeze, LevelSync, p.freezable(fs)},
		{LevelSync, LevelNone, writable(fs)},
	}
	for _, step := range steps {
		if p.Level != step.from || step.because == nil {
			continue
		}
		if !r.AllowDegrade {
			return refuse("level", "cannot reach level %q: %w", r.Level, step.because)
		}
		p.Level = step.to
		p.Degraded = strings.TrimPrefix(p.Degraded+"; "+step.because.Error(), "; ")
	}
	return nil
}

func noJobs(l Level) error {
	return fmt.Errorf("this daemon has no process supervisor to %s jobs with", l)
}

func (p *Plan) freezable(fs []quiesce.Filesystem) error {
	if p.CPIFreezes { // then we only write out
		return writable(fs)
	}
	var all []error
	for _, f := range fs {
		if f.PassedOver() == "" {
			all = append(all, f.Freezable())
		}
	}
	return errors.Join(all...)
}

func writable(fs []quiesce.Filesystem) error {
	var all []error
	for _, f := range fs {
		if f.PassedOver() == "" {
			all = append(all, f.Writable())
		}
	}
	return errors.Join(all...)
}

// choose keeps the filesystems that have something to write out or to freeze.
func (p *Plan) choose(on *quiesce.Contents) {
	if p.Level == LevelNone {
		return
	}
	for _, f := range on.Filesystems {
		if why := f.PassedOver(); why != "" {
			p.Notes = append(p.Notes, why)
			continue
		}
		p.Filesystems = append(p.Filesystems, f)
	}
	p.Notes = append(p.Notes, on.Notes...)
	if p.CPIFreezes && p.Level.Clean() {
		p.Notes = append(p.Notes, "the CPI freezes by itself (cpi.freezes_itself)")
	}
}

func (p *Plan) list(b Budgets) {
	each := func(kind ActionKind, budget time.Duration) {
		for _, f := range p.Filesystems {
			p.Actions = append(p.Actions, Action{kind, f.Path, budget})
		}
	}
	for _, d := range p.Disks {
		p.Actions = append(p.Actions, Action{ActStartCPI, d.CID, b.PreSync})
	}
	each(ActWriteOut, b.PreSync)
	if p.Freezes() {
		each(ActFreeze, b.window())
	}
	for _, d := range p.Disks {
		p.Actions = append(p.Actions, Action{ActSnapshot, d.CID, b.Snapshot})
	}
}
