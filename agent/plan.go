package agent

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/quiesced/quiesced/agent/retention"
	"github.com/quiesced/quiesced/quiesce"
	"github.com/quiesced/quiesced/quiesce/jobs"
)

// Budgets bound the steps of a run.
type Budgets struct {
	PreStop  time.Duration // each pre-stop and post-stop script
	Drain    time.Duration // each job's draining
	Stop     time.Duration // stopping the services
	Lock     time.Duration // each lock, unlock, pre-snapshot and post-snapshot script
	PreSync  time.Duration // writing out before the freeze, and the CPI's getting ready
	Frozen   time.Duration // from before the first freeze to the last thaw
	Snapshot time.Duration // from the CPI's being told to its answer
	Linger   time.Duration // jobs stay at rest between a director's calls for one instance
	Verify   time.Duration // looking at a snapshot, but for removing what was made for that
	Resume   time.Duration // each of thawing, starting the services, pre-start and post-start scripts
}

// window is how long a freeze may last: an answer that would come too late to
// count is not waited for in it.
func (b Budgets) window() time.Duration { return min(b.Frozen, b.Snapshot) }

// Settings is what the operator configured.
type Settings struct {
	Enabled      bool // enable_snapshots
	Instance     Instance
	VM           string // the CPI's CID of this VM, "" where that is not known
	Disks        []quiesce.Disk
	Attached     func() ([]quiesce.Disk, error) // in place of Disks where they come and go; nil for none
	Levels       map[Trigger]Level
	AllowDegrade bool
	Budgets      Budgets
	StateDir     string
	Keep         retention.Policies // which snapshots stay

	// ReleaseOnStderr matches a line of the CPI's stderr that says that the point
	// in time is fixed; {disk_cid} in it stands for the disk's CID. Empty for none.
	ReleaseOnStderr string

	// GoneMessage matches the message of a CPI's error that says that a snapshot is not
	// there; {snapshot_cid} in it stands for the snapshot's CID. Empty for none.
	GoneMessage string

	// CPIFreezes says that the CPI freezes by itself, as those do that snapshot
	// through device-mapper: a freeze of ours would make it fail.
	CPIFreezes bool
	Processes  Processes
	Depends    []quiesce.Dependency // what the daemon needs while a filesystem is frozen
}

// ActionKind says what an action does.
type ActionKind string

// The kinds of action, in the order in which a plan has them.
const (
	ActStartCPI    ActionKind = "start CPI" // start its process, which waits for its last byte
	ActPreStop     ActionKind = "pre-stop"
	ActUnmonitor   ActionKind = "unmonitor" // its supervisor starts it no more when it ends
	ActDrain       ActionKind = "drain"
	ActStop        ActionKind = "stop"
	ActPostStop    ActionKind = "post-stop"
	ActLock        ActionKind = "lock"         // pre-backup-lock
	ActPreSnapshot ActionKind = "pre-snapshot" // the job's own hook
	ActWriteOut    ActionKind = "write out"    // syncfs
	ActFreeze      ActionKind = "freeze"       // FIFREEZE
	ActSnapshot    ActionKind = "snapshot"     // give the CPI its last byte, wait for its answer
	ActHold        ActionKind = "hold"         // wait for whoever takes the snapshot
)

// The kinds that a restore has beside those.
const (
	ActMakeDisk  ActionKind = "make disk"  // the CPI makes one from the snapshot
	ActCheckDisk ActionKind = "check disk" // its filesystem
	ActUnmount   ActionKind = "unmount"
	ActSwap      ActionKind = "swap" // exchange the two disks: from here on it is gone on with
	ActMount     ActionKind = "mount"
	ActStart     ActionKind = "start"
)

// undoneBy names the undo of each kind; what has none leaves nothing behind.
var undoneBy = map[ActionKind]string{
	ActStartCPI:    "end the process unless it was told to go on",
	ActPreStop:     "post-start",
	ActUnmonitor:   "monitor",
	ActDrain:       "stop and start",
	ActStop:        "pre-start, start, post-start",
	ActLock:        "post-backup-unlock",
	ActPreSnapshot: "post-snapshot",
	ActFreeze:      "thaw",
	ActMakeDisk:    "delete it",
	ActCheckDisk:   "detach it",
	ActUnmount:     "mount",
	ActSwap:        "swap, where the restored disk cannot be mounted or the jobs do not run on it",
}

// Action is one step of a plan. It is data: what it did or intended is read
// back from the journal by whoever resumes.
type Action struct {
	Kind   ActionKind
	Target string // disk CID, mount point, job or service
	Budget time.Duration
}

// Undo names what resuming does about the action, "" if nothing.
func (a Action) Undo() string { return undoneBy[a.Kind] }

// Plan is what a run is going to do.
type Plan struct {
	Asked       Level
	Level       Level  // what the actions reach; less than asked only with AllowDegrade
	Degraded    string // why it is less
	LevelNote   string // why it is another one, and as good
	Disks       []quiesce.Disk
	Sizes       map[string]int64     // of the disks in bytes, by CID, where they are known
	Filesystems []quiesce.Filesystem // to be written out, and frozen at level freeze and above
	Holds       bool                 // somebody else takes the snapshots
	JobsAtRest  bool                 // the director has stopped the jobs: they are left so
	CPIFreezes  bool                 // the freezing is left to the CPI
	Notes       []string             // what a reader should know: filesystems passed over
	Actions     []Action
}

// Freezes says whether we freeze anything.
func (p *Plan) Freezes() bool {
	return p.Level.Clean() && !p.CPIFreezes && len(p.Filesystems) > 0
}

// touchesJobs says whether anything is done to the jobs.
func (p *Plan) touchesJobs() bool {
	return p.Level.jobs() || slices.ContainsFunc(p.Actions, func(a Action) bool { return a.Kind == ActPreSnapshot })
}

// newPlan decides. It reads nothing and changes nothing: on is what a survey
// found on the disks, and in how the jobs are. The error is a *RefusedError.
func newPlan(r Request, s *Settings, disks []quiesce.Disk, on *quiesce.Contents, in *Inventory) (*Plan, error) {
	if len(disks) == 0 {
		return nil, refuse("disks", "this instance has no persistent disk")
	}
	p := &Plan{Asked: r.Level, Level: r.Level, Disks: disks, Sizes: on.Sizes, Holds: r.Lease != 0, CPIFreezes: s.CPIFreezes}
	if err := p.reach(r, on.Filesystems, in); err != nil {
		return nil, err
	}
	p.choose(on)
	if in.NoHooks != "" && p.Level == LevelFreeze {
		p.Notes = append(p.Notes, in.NoHooks)
	}
	p.list(s.Budgets, in)
	return p, nil
}

// reach lowers the level to what can be reached, if the request allows it.
func (p *Plan) reach(r Request, fs []quiesce.Filesystem, in *Inventory) error {
	steps := []struct {
		from, to Level
		because  error
	}{
		{LevelStop, LevelFreeze, in.CannotStop},
		{LevelLock, LevelFreeze, in.CannotLock},
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
	p.atRest(in)
	return nil
}

// atRest changes the level to what the jobs make of it.
func (p *Plan) atRest(in *Inventory) {
	switch {
	case p.Level != LevelStop && p.Level != LevelLock:
	case in.Held:
	case in.AtRest:
		p.Level, p.JobsAtRest = LevelStop, true
		p.LevelNote = "the director has stopped the jobs already: they are left as they are"
	case p.Level == LevelLock && len(in.Locks) == 0:
		p.Level = LevelFreeze
		p.LevelNote = "no job has a lock script: there is nothing to lock"
	}
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

func (p *Plan) list(b Budgets, in *Inventory) {
	each := func(kind ActionKind, budget time.Duration) {
		for _, f := range p.Filesystems {
			p.Actions = append(p.Actions, Action{kind, f.Path, budget})
		}
	}
	if !p.Holds {
		for _, d := range p.Disks {
			p.Actions = append(p.Actions, Action{ActStartCPI, d.CID, b.PreSync})
		}
	}
	p.listJobs(b, in)
	each(ActWriteOut, b.PreSync)
	if p.Freezes() {
		each(ActFreeze, b.window())
	}
	take := ActSnapshot
	if p.Holds {
		take = ActHold
	}
	for _, d := range p.Disks {
		p.Actions = append(p.Actions, Action{take, d.CID, b.Snapshot})
	}
}

// owner is whose script it is.
func owner(s jobs.Script) string { return cmp.Or(s.Job, "processes.hooks") }

// listJobs lists what is done to the jobs before the filesystems are frozen.
func (p *Plan) listJobs(b Budgets, in *Inventory) {
	scripts := func(kind ActionKind, budget time.Duration, all []jobs.Script) {
		for _, s := range all {
			p.Actions = append(p.Actions, Action{kind, owner(s), budget})
		}
	}
	services := func(kind ActionKind, all []jobs.Service) {
		for _, s := range all {
			p.Actions = append(p.Actions, Action{kind, s.Name, b.Stop})
		}
	}
	switch {
	case p.JobsAtRest || in.Held:
	case p.Level == LevelStop:
		scripts(ActPreStop, b.PreStop, in.Scripts[jobs.PreStop])
		services(ActUnmonitor, in.running())
		scripts(ActDrain, b.Drain, in.Scripts[jobs.Drain])
		services(ActStop, in.running())
		scripts(ActPostStop, b.PreStop, in.Scripts[jobs.PostStop])
	case p.Level == LevelLock:
		for _, layer := range in.Locks {
			scripts(ActLock, b.Lock, layer)
		}
	}
	if p.Level.Clean() && !p.JobsAtRest && !in.Held {
		scripts(ActPreSnapshot, b.Lock, in.Scripts[jobs.PreSnapshot])
	}
}

func (p *Plan) levelNotes() []string {
	if p.LevelNote == "" {
		return nil
	}
	return []string{p.LevelNote}
}
