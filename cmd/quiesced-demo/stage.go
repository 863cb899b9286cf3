package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

const (
	hostSize = 400 << 20 // of the filesystem with reflinks on which the disk lies
	diskMiB  = 64
)

// stage is everything that the demonstration sets up, and how each part is taken
// away again.
type stage struct {
	out   io.Writer
	undo  []func() error // in the order of setting up
	dir   string
	cpi   *cpi.Client
	host  string // mount point of the filesystem with reflinks
	disk  string // CID
	store string // mount point of the disk's filesystem
}

// clear takes everything away, last first, and goes on past failures.
func (s *stage) clear() error {
	var errs []error
	for _, undo := range slices.Backward(s.undo) {
		errs = append(errs, undo())
	}
	s.undo = nil
	return errors.Join(errs...)
}

func (s *stage) later(undo func() error) { s.undo = append(s.undo, undo) }

// say prints a heading or a remark.
func (s *stage) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.out, "\n"+format+"\n", args...)
}

// show prints an aside, indented.
func (s *stage) show(format string, args ...any) {
	text := strings.TrimRight(fmt.Sprintf(format, args...), "\n")
	_, _ = fmt.Fprintf(s.out, "    %s\n", strings.ReplaceAll(text, "\n", "\n    "))
}

// play is the demonstration from beginning to end.
func (s *stage) play(ctx context.Context) error {
	s.say("quiesced: a clean snapshot of a disk that is being written to")
	if err := s.build(ctx); err != nil {
		return err
	}
	bus, err := s.startBus()
	if err != nil {
		return err
	}
	d, err := s.startDaemon(ctx, bus)
	if err != nil {
		return err
	}
	w, err := s.startWriter(ctx)
	if err != nil {
		return err
	}
	director := &director{stage: s, bus: bus, daemon: d, writer: w}
	taken, err := director.takeSnapshot(ctx)
	if err != nil {
		return err
	}
	if err := s.showMetrics(ctx, d); err != nil {
		return err
	}
	if err := w.stop(); err != nil {
		return err
	}
	if err := s.prove(taken); err != nil {
		return err
	}
	return director.deleteSnapshot(ctx, taken)
}

// build makes the disk: an image that the CPI made, on a filesystem with
// reflinks, with an ext4 in it that is mounted where a job would have it.
func (s *stage) build(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "quiesced-demo-")
	if err != nil {
		return err
	}
	s.dir = dir
	s.later(func() error { return os.RemoveAll(dir) })
	host, err := loopfs.Make(dir, "host", "xfs", hostSize)
	if err != nil {
		return err
	}
	s.host = host.Mount
	s.later(host.Close)

	root := filepath.Join(s.host, "cpi")
	if err := os.Mkdir(root, 0o700); err != nil {
		return err
	}
	s.cpi = &cpi.Client{Path: sibling("local-cpi"), Context: map[string]any{"root": root}}
	answer, err := s.cpi.Do(ctx, "", "create_disk", diskMiB, map[string]any{}, "vm-demo")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(answer, &s.disk); err != nil {
		return err
	}
	image := s.image("disks", s.disk)
	s.store = filepath.Join(dir, "store")
	if err := errors.Join(loopfs.Format(image, "ext4"), loopfs.Mount(image, s.store)); err != nil {
		return err
	}
	s.later(func() error { return loopfs.Unmount(s.store) })
	s.say("1. A persistent disk")
	s.show("%s, %d MiB: an ext4 mounted at %s,\nin an image on an XFS, whose reflinks are the snapshots", s.disk, diskMiB, s.store)
	return nil
}

// image is where local-cpi keeps a disk's or a snapshot's image.
func (s *stage) image(folder, cid string) string {
	return filepath.Join(s.host, "cpi", folder, cid+".img")
}

// sibling is a binary beside this one.
func sibling(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}

// endWait is how long a program of the demonstration may take to end.
const endWait = 10 * time.Second

// end ends a program that the demonstration started.
func end(cmd *exec.Cmd) error {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(endWait, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	_ = cmd.Wait() // how it ended does not matter here
	return nil
}
