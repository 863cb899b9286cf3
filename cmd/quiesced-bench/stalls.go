package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// imageSize holds what is dirty, the stream and the writer's file, in MiB, four
// times over: ext4 begins to write out by itself when what is dirty is half of what
// is free.
const imageSize = 10240

// stalls measures for how long a small durable write has to wait, less the hold:
// in the window, from the first FIFREEZE to the thaw, and in the whole, from the
// request to the thaw.
func (s *stage) stalls(ctx context.Context, o options) error {
	image, err := s.image("stalls", imageSize)
	if err != nil {
		return err
	}
	s.say("\nLongest wait of a 4 KiB fdatasync, less a hold of %s: ms, median of %d (least to most)\n", hold, o.reps)
	s.say("%-6s %5s %-10s %-9s %-26s %-26s %s\n", "", "MiB", "", "", "window", "whole", "quiesced over it: window, whole")
	for _, kind := range o.kinds {
		if err := s.scope(func() error { return s.stallsOn(ctx, o, image, kind) }); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) stallsOn(ctx context.Context, o options, image, kind string) error {
	mount, err := s.filesystem(image, kind)
	if err != nil {
		return err
	}
	ours, err := s.ours(ctx, mount)
	if err != nil {
		return err
	}
	agent, err := s.qemuGA(ctx, mount)
	if err != nil {
		return err
	}
	methods := []method{ours, fsfreeze(mount), agent, bare(mount)}
	for _, size := range o.sizes {
		for _, mode := range o.modes {
			if err := s.cell(ctx, o.reps, kind, mount, size, mode, methods); err != nil {
				return err
			}
		}
	}
	return nil
}

// cell measures every method in turns and prints a row for each.
func (s *stage) cell(ctx context.Context, reps int, kind, mount, size, mode string, methods []method) error {
	windows, wholes := make([]series, len(methods)), make([]series, len(methods))
	for rep := range reps {
		for i := range methods {
			at := (rep + i) % len(methods)
			window, whole, err := sample(mount, size, mode, methods[at])
			if err = errors.Join(err, ctx.Err()); err != nil {
				return err
			}
			windows[at], wholes[at] = append(windows[at], window), append(wholes[at], whole)
		}
	}
	for i, m := range methods {
		s.say("%-6s %5s %-10s %-9s %-26s %-26s", kind, size, mode, m.name, windows[i], wholes[i])
		if i > 0 {
			s.say(" %.3f %.3f", windows[0].over(windows[i]), wholes[0].over(wholes[i]))
		}
		s.say("\n")
	}
	return nil
}

// sample is one freeze beside a writer. Its results are the longest waits in the
// window and in the whole.
func sample(mount, size, mode string, m method) (window, whole time.Duration, err error) {
	err = armed(mount, func() error {
		window, whole, err = sampleArmed(mount, size, mode, m)
		return err
	})
	return window, whole, err
}

func sampleArmed(mount, size, mode string, m method) (window, whole time.Duration, err error) {
	stop, err := load(mount, size, mode)
	if err != nil {
		return 0, 0, errors.Join(err, stop())
	}
	writer, err := begin("writer", mount)
	if err != nil {
		return 0, 0, errors.Join(err, stop())
	}
	time.Sleep(100 * time.Millisecond)
	asked := now()
	h, err := m.do()
	time.Sleep(30 * time.Millisecond)
	ops, opsErr := writer.ops()
	if err := errors.Join(err, opsErr, stop()); err != nil {
		return 0, 0, err
	}
	window, whole = waits(ops, asked, h)
	return window, whole, nil
}

// load makes the filesystem busy. The function that it returns, never nil, ends
// that and leaves the filesystem clean.
func load(mount, size, mode string) (stop func() error, err error) {
	var children []*child
	stop = func() error {
		var errs []error
		for _, c := range children {
			errs = append(errs, c.end())
		}
		return errors.Join(append(errs, clean(mount))...)
	}
	start := func(role string, args ...string) error {
		c, err := begin(role, args...)
		if err == nil {
			children = append(children, c)
		}
		return err
	}
	if mode == "continuous" {
		if err := start("stream", mount); err != nil {
			return stop, err
		}
		time.Sleep(300 * time.Millisecond)
	}
	if n, err := strconv.Atoi(size); err != nil || n > 0 {
		return stop, start("burst", mount, size)
	}
	return stop, nil
}

// clean removes every file and writes out.
func clean(mount string) error {
	names, err := filepath.Glob(filepath.Join(mount, "*"))
	for _, name := range names {
		if info, statErr := os.Stat(name); statErr == nil && info.Mode().IsRegular() {
			err = errors.Join(err, os.Remove(name))
		}
	}
	dir, openErr := os.Open(mount)
	if openErr != nil {
		return errors.Join(err, openErr)
	}
	defer dir.Close()
	return errors.Join(err, unix.Syncfs(int(dir.Fd())))
}

// waits are the longest of the writer's operations between the request and the
// thaw. One that waited for the hold does not count for as long as that was: it
// is the window's.
func waits(ops []op, asked time.Duration, h held) (window, whole time.Duration) {
	for _, o := range ops {
		if o.to < asked || o.from > h.to {
			continue
		}
		wait := o.to - o.from
		if overlap := min(o.to, h.to) - max(o.from, h.from); overlap > 0 {
			wait -= overlap
			window = max(window, wait)
		}
		whole = max(whole, wait)
	}
	return window, whole
}
