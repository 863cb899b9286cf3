package jobs

import (
	"context"
	"maps"
	"slices"
	"strings"
)

// CycleError says that jobs are to be locked before one another.
type CycleError struct {
	Jobs []string // each before the next, and the last before the first
}

func (e *CycleError) Error() string {
	return "cannot order the locks: each of these is to be locked before the next: " +
		strings.Join(append(slices.Clone(e.Jobs), e.Jobs[0]), " → ")
}

// LockLayers are the lock scripts in the order in which they are to be run: those
// of one layer at once, one layer after the other, each as early as can be.
//
// The order is that of the metadata scripts' backup_should_be_locked_before. It
// holds through jobs that have no lock script themselves. Jobs are known by their
// names alone, since a VM does not tell of which release they are; those on other
// VMs do not count. Jobs with skip_bbr_scripts are left out. The error joins
// *ScriptErrors of metadata scripts, or is a *CycleError.
func (r *Runner) LockLayers(ctx context.Context) ([][]Script, error) {
	scripts, err := r.Layout.Scripts(Lock)
	if err != nil {
		return nil, err
	}
	known, err := r.allMetadata(ctx)
	if err != nil {
		return nil, err
	}
	o := order{locks: map[string]Script{}, before: map[string][]string{}, depth: map[string]int{}}
	for _, s := range scripts {
		if !known[s.Job].Skip {
			o.locks[s.Job] = s
		}
	}
	for job, m := range known {
		for _, later := range m.Before {
			o.before[later.Job] = append(o.before[later.Job], job)
		}
	}
	return o.layers()
}

// allMetadata is the metadata of each job that has any.
func (r *Runner) allMetadata(ctx context.Context) (map[string]metadata, error) {
	scripts, err := r.Layout.Scripts(Metadata)
	if err != nil {
		return nil, err
	}
	found := make([]metadata, len(scripts))
	index := map[string]int{}
	for i, s := range scripts {
		index[s.Job] = i
	}
	err = each(scripts, nil, func(s Script) error {
		m, err := r.metadata(ctx, s)
		found[index[s.Job]] = m
		return err
	})
	all := map[string]metadata{}
	for job, i := range index {
		all[job] = found[i]
	}
	return all, err
}

// order puts lock scripts in layers.
type order struct {
	locks  map[string]Script   // by job
	before map[string][]string // the jobs that are to be locked before a job
	depth  map[string]int      // of each job that was looked at: how many layers end with it
	path   []string            // the jobs that are being looked at, each after the next one
}

func (o *order) layers() ([][]Script, error) {
	var all [][]Script
	for _, jobs := range [][]string{slices.Sorted(maps.Keys(o.locks)), slices.Sorted(maps.Keys(o.before))} {
		for _, job := range jobs {
			if err := o.visit(job); err != nil {
				return nil, err
			}
		}
	}
	for _, job := range slices.Sorted(maps.Keys(o.locks)) {
		for len(all) < o.depth[job] {
			all = append(all, nil)
		}
		all[o.depth[job]-1] = append(all[o.depth[job]-1], o.locks[job])
	}
	return all, nil
}

// visit finds a job's depth, after those of all that come before it. A job
// without a lock script is as deep as the deepest of these.
func (o *order) visit(job string) error {
	if _, known := o.depth[job]; known {
		return nil
	}
	if i := slices.Index(o.path, job); i >= 0 {
		cycle := slices.Clone(o.path[i:])
		slices.Reverse(cycle)
		return &CycleError{Jobs: cycle}
	}
	o.path = append(o.path, job)
	depth := 0
	for _, earlier := range slices.Sorted(slices.Values(o.before[job])) {
		if err := o.visit(earlier); err != nil {
			return err
		}
		depth = max(depth, o.depth[earlier])
	}
	o.path = o.path[:len(o.path)-1]
	if _, locks := o.locks[job]; locks {
		depth++
	}
	o.depth[job] = depth
	return nil
}
