package quiesce

import (
	"context"
	"fmt"
	"time"

	"github.com/quiesced/quiesced/quiesce/guard"
	"github.com/quiesced/quiesced/quiesce/writeout"
)

// Freezer starts guards and recovers what an earlier one left behind.
type Freezer struct {
	Binary *guard.Binary // the guard's executable, opened at start-up
	Dir    string        // where the guards' state files lie; on a tmpfs
}

// Start starts a guard for the filesystems and returns when it has opened and
// verified each of them and is ready. Nothing is frozen yet. The guard thaws by
// itself when the freeze has lasted for limit.
func (f *Freezer) Start(ctx context.Context, run string, fs []Filesystem, limit time.Duration) (*guard.Guard, error) {
	targets := make([]guard.Filesystem, 0, len(fs))
	for _, one := range fs {
		t, err := target(one)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return guard.Start(ctx, f.Binary, targets, guard.Options{RunID: run, Dir: f.Dir, Deadline: limit})
}

// WriteAhead writes out what is dirty on the filesystems, so gently that the
// application hardly notices, for no longer than limit. What it does not find is
// left for the guard's Sync; so an error of it costs the application time and
// nothing else.
func (f *Freezer) WriteAhead(ctx context.Context, fs []Filesystem, limit time.Duration) (writeout.Done, error) {
	mounts := make([]string, 0, len(fs))
	for _, one := range fs {
		mounts = append(mounts, one.Path)
	}
	return writeout.Run(ctx, f.Binary.Command, limit, mounts)
}

// Recover thaws what guards of dead daemons left frozen, and what the options
// add to it.
func (f *Freezer) Recover(ctx context.Context, o guard.RecoverOptions) ([]guard.Recovered, error) {
	return guard.Recover(ctx, f.Binary, f.Dir, o)
}

// target is what the guard has to find again when it opens the mount point. Its
// device is the one that stat(2) shows there, which for a btrfs subvolume is
// not the superblock's.
func target(f Filesystem) (guard.Filesystem, error) {
	t, err := guard.Identify(f.Path)
	if err != nil {
		return guard.Filesystem{}, err
	}
	if t.MountID != f.MountID {
		return guard.Filesystem{}, fmt.Errorf("cannot use mount %q: it was mount %d and is now mount %d", f.Path, f.MountID, t.MountID)
	}
	t.Type, t.Rank = f.Type, f.Rank
	return t, nil
}
