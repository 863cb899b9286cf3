package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/quiesce/guard"
)

// smallest is the size of the images that many filesystems are made in, in MiB.
const smallest = 16

// many measures a freeze and thaw with nothing held, of many filesystems at
// once, beside the ioctls one after another; how far apart the filesystems were
// frozen; and what the guard keeps in memory.
func (s *stage) many(ctx context.Context, o options) error {
	return s.scope(func() error {
		var mounts []string
		for i := range 64 {
			image, err := s.image("many-"+strconv.Itoa(i), smallest)
			if err != nil {
				return err
			}
			mount, err := s.filesystem(image, "ext4")
			if err != nil {
				return err
			}
			mounts = append(mounts, mount)
		}
		reps := 3 * o.reps
		s.say("\nFreeze and thaw with nothing held, ext4: ms, median of %d (least to most)\n", reps)
		for _, n := range []int{1, 8, 64} {
			if err := s.pairs(ctx, mounts[:n], reps); err != nil {
				return err
			}
		}
		s.say("\nFrom the first to the last of 8 ext4 frozen: ms, median of %d (least to most)\n", reps)
		for _, dirty := range []bool{false, true} {
			if err := s.skew(ctx, mounts[:8], reps, dirty); err != nil {
				return err
			}
		}
		return nil
	})
}

// pairs compares, in turns, the guard with the ioctls one after another.
func (s *stage) pairs(ctx context.Context, mounts []string, reps int) error {
	var ours, bare series
	locked := 0
	for range reps {
		began := now()
		if err := ioctls(mounts); err != nil {
			return err
		}
		bare = append(bare, now()-began)
		result, kib, err := s.freeze(ctx, mounts, func() error { return nil })
		if err != nil {
			return err
		}
		ours, locked = append(ours, span(result)), max(locked, kib)
	}
	s.say("%3d filesystems: quiesced-guard %-26s ioctls %-26s ratio %.2f; guard's Locked %d KiB at most\n",
		len(mounts), ours, bare, ours.over(bare), locked)
	return nil
}

// ioctls freezes and thaws one filesystem after another.
func ioctls(mounts []string) error {
	var fds []int
	var errs []error
	for _, mount := range mounts {
		f, err := os.Open(mount)
		if err != nil {
			return err
		}
		defer f.Close()
		fds = append(fds, int(f.Fd()))
	}
	for _, request := range []uint{fiFreeze, fiThaw} {
		for _, fd := range fds {
			errs = append(errs, unix.IoctlSetInt(fd, request, 0))
		}
	}
	return errors.Join(errs...)
}

// freeze freezes the mounts through a guard, and thaws them. It returns what came
// of it, and how many KiB the guard had locked.
func (s *stage) freeze(ctx context.Context, mounts []string, before func() error) (guard.Result, int, error) {
	var fs []guard.Filesystem
	for _, mount := range mounts {
		f, err := guard.Identify(mount)
		if err != nil {
			return guard.Result{}, 0, err
		}
		fs = append(fs, f)
	}
	g, err := guard.Start(ctx, s.guard, fs, guard.Options{RunID: "bench", Dir: s.memory, Deadline: 5 * time.Second})
	if err != nil {
		return guard.Result{}, 0, err
	}
	kib := locked(g.Process().PID)
	if err = before(); err == nil {
		err = g.Freeze(ctx)
	}
	result, thawErr := g.Thaw(ctx)
	if err := errors.Join(err, thawErr); err != nil {
		return result, kib, err
	}
	if !result.Unbroken() {
		return result, kib, fmt.Errorf("the freeze was broken: %+v", result)
	}
	return result, kib, nil
}

// locked is how much memory a process has locked, in KiB.
func locked(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	_, rest, _ := bytes.Cut(text, []byte("Locked:"))
	var kib int
	_, _ = fmt.Sscan(string(rest), &kib)
	return kib
}

// span is from before the first FIFREEZE to after the last FITHAW.
func span(r guard.Result) time.Duration {
	first, last := r.Filesystems[0].ThawedAt, r.Filesystems[0].ThawedAt
	for _, f := range r.Filesystems {
		if began := f.ThawedAt.Add(-f.HeldFor); began.Before(first) {
			first = began
		}
		last = maxTime(last, f.ThawedAt)
	}
	return last.Sub(first)
}

// skew is how far apart the filesystems were frozen.
func (s *stage) skew(ctx context.Context, mounts []string, reps int, dirty bool) error {
	var all series
	for range reps {
		result, _, err := s.freeze(ctx, mounts, func() error {
			if dirty {
				return dirtyEach(mounts)
			}
			return nil
		})
		if err != nil {
			return err
		}
		first, last := result.Filesystems[0].FrozenAt, result.Filesystems[0].FrozenAt
		for _, f := range result.Filesystems {
			if f.FrozenAt.Before(first) {
				first = f.FrozenAt
			}
			last = maxTime(last, f.FrozenAt)
		}
		all = append(all, last.Sub(first))
	}
	s.say("%-24s %s\n", map[bool]string{false: "idle", true: "4 KiB dirty on each"}[dirty], all)
	return nil
}

func dirtyEach(mounts []string) error {
	var errs []error
	for _, mount := range mounts {
		errs = append(errs, os.WriteFile(filepath.Join(mount, "dirty"), []byte(strings.Repeat("x", 4096)), 0o600))
	}
	return errors.Join(errs...)
}
