package guard

import (
	"syscall"
	"time"
)

// Result is what came of a freeze.
type Result struct {
	Cause       Cause
	Filesystems []Outcome
}

// Outcome is what came of one filesystem. Times are zero when it has not
// happened.
type Outcome struct {
	Path     string
	State    State
	Errno    syscall.Errno
	FrozenAt time.Time
	ThawedAt time.Time

	// FrozenFor is the time between the return of FIFREEZE and that of FITHAW,
	// HeldFor that from before FIFREEZE, which is as long as a writer can have
	// waited: FIFREEZE stops writers first and then writes out.
	FrozenFor time.Duration
	HeldFor   time.Duration

	// Unseen says that the canary, which waits on the freeze, has not woken from
	// it after the thaw: something else (device-mapper) holds the filesystem
	// frozen as well, or the canary was killed.
	Unseen bool
}

// Unbroken says whether every filesystem was frozen and thawed by us.
func (r Result) Unbroken() bool {
	for _, f := range r.Filesystems {
		if f.State != StateThawed || f.FrozenAt.IsZero() || f.ThawedAt.IsZero() {
			return false
		}
	}
	return len(r.Filesystems) > 0
}

// result tells r as a Result. Wall-clock times are reckoned from now.
func (r *Record) result() Result {
	now, boot := time.Now(), time.Duration(boottime())
	wall := func(at time.Duration) time.Time {
		if at == 0 {
			return time.Time{}
		}
		return now.Add(at - boot).Round(0)
	}
	res := Result{Cause: r.Cause}
	for i, c := range r.Cells {
		o := Outcome{Path: r.Filesystems[i].Path, State: c.State, Errno: c.Errno,
			FrozenAt: wall(c.FrozenAt), ThawedAt: wall(c.ThawedAt), Unseen: c.unseen()}
		if c.ThawedAt != 0 && c.FrozenAt != 0 {
			o.FrozenFor = c.ThawedAt - c.FrozenAt
		}
		if c.ThawedAt != 0 && c.BeganAt != 0 {
			o.HeldFor = c.ThawedAt - c.BeganAt
		}
		res.Filesystems = append(res.Filesystems, o)
	}
	return res
}

// owedPaths names the filesystems that may still need a thaw of ours.
func (r *Record) owedPaths() []string {
	var paths []string
	for i, c := range r.Cells {
		if c.State.owed() {
			paths = append(paths, r.Filesystems[i].Path)
		}
	}
	return paths
}
