package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// EndLeft ends the scripts that a daemon which is gone has left behind unfinished,
// with all that they have started, and lists them, sorted. It returns when they
// have ended, or when ctx ends. It is for a daemon that has started none yet, since it
// does not tell whose they are. Those of a daemon with another Layout.Root are left
// alone, and so is what scripts that ended well have left running.
//
// They are known by their control groups. Those that have none are known by their
// environment and by leading a session; what such a one has started is its
// process group.
func (r *Runner) EndLeft(ctx context.Context) ([]Script, error) {
	var found []Script
	var errs []error
	for _, g := range r.Layout.leftCgroups() {
		if g.populated() {
			found = append(found, g.script)
			errs = append(errs, notEnded(g.script, g.kill(ctx)))
		}
		g.remove()
	}
	for _, leader := range r.Layout.leftLeaders() {
		found = append(found, leader.script)
		errs = append(errs, notEnded(leader.script, leader.kill(ctx)))
	}
	slices.SortFunc(found, func(a, b Script) int {
		return cmp.Or(cmp.Compare(a.Job, b.Job), cmp.Compare(a.Name, b.Name))
	})
	return slices.Compact(found), errors.Join(errs...)
}

func notEnded(s Script, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot end %s, which was left at work: %w", s, err)
}

// leftCgroup is the control group of a script.
type leftCgroup struct {
	cgroup
	script Script
}

// leftCgroups are the control groups of scripts, wherever a daemon made them.
func (l Layout) leftCgroups() []leftCgroup {
	var all []leftCgroup
	at, _ := cgroupMount()
	if at == "" {
		return nil
	}
	_ = filepath.WalkDir(at, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return nil //nolint:nilerr // it went meanwhile
		}
		if name, ok := strings.CutPrefix(e.Name(), cgroupPrefix); ok {
			if s, _, ok := l.marked(mark(name)); ok {
				all = append(all, leftCgroup{cgroup{path: path}, s})
				return fs.SkipDir
			}
		}
		return nil
	})
	return all
}
