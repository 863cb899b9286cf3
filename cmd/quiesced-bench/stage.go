package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/quiesce/guard"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// stage is where everything is set up, and cleared away in reverse.
type stage struct {
	out    io.Writer
	dir    string // on the disk
	memory string // on a tmpfs: sockets, records, logs
	guard  *guard.Binary
	undo   []func() error
}

func (s *stage) say(format string, args ...any) { _, _ = fmt.Fprintf(s.out, format, args...) }

func (s *stage) later(do func() error) { s.undo = append(s.undo, do) }

func (s *stage) clear() error {
	var errs []error
	for _, do := range slices.Backward(s.undo) {
		errs = append(errs, do())
	}
	s.undo = nil
	return errors.Join(errs...)
}

// scope clears away what do has set up, when it ends.
func (s *stage) scope(do func() error) error {
	outer := s.undo
	s.undo = nil
	err := do()
	err = errors.Join(err, s.clear())
	s.undo = outer
	return err
}

// build makes the directories and opens the guard.
func (s *stage) build() error {
	var err error
	if s.dir, err = os.MkdirTemp("", "quiesced-bench-"); err != nil {
		return err
	}
	s.later(func() error { return os.RemoveAll(s.dir) })
	s.memory = filepath.Join(s.dir, "memory")
	if err := os.Mkdir(s.memory, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("bench", s.memory, "tmpfs", 0, "size=64m"); err != nil {
		return fmt.Errorf("cannot mount a tmpfs: %w", err)
	}
	s.later(func() error { return unix.Unmount(s.memory, 0) })
	if s.guard, err = guard.OpenBinary(sibling("quiesced-guard")); err != nil {
		return err
	}
	s.later(s.guard.Close)
	var host unix.Utsname
	_ = unix.Uname(&host)
	s.say("%s, Linux %s\n", time.Now().UTC().Format(time.DateOnly), unix.ByteSliceToString(host.Release[:]))
	return nil
}

func sibling(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(self), name)
}

// mkfs are the commands that make a filesystem and discard nothing: an image
// with holes is slower the first time.
var mkfs = map[string]string{
	"ext4":  "mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=0,lazy_journal_init=0",
	"xfs":   "mkfs.xfs -q -f -K",
	"btrfs": "mkfs.btrfs -q -f -K",
}

// image writes an image of so many MiB in full, and returns its path.
func (s *stage) image(name string, size int) (string, error) {
	path := filepath.Join(s.dir, name+".img")
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	s.later(func() error { return os.Remove(path) })
	chunk := make([]byte, 1<<20)
	for range size {
		if _, err = f.Write(chunk); err != nil {
			break
		}
	}
	return path, errors.Join(err, f.Sync(), f.Close())
}

// filesystem makes a filesystem in an image and mounts it, past the page cache
// of what the image lies on: so a loop device is most like a disk.
func (s *stage) filesystem(image, kind string) (string, error) {
	if _, err := command(strings.Fields(mkfs[kind] + " " + image)...); err != nil {
		return "", err
	}
	device, err := command("losetup", "-f", "--show", "--direct-io=on", image)
	if err != nil {
		return "", err
	}
	device = strings.TrimSpace(device)
	s.later(func() error { _, err := command("losetup", "-d", device); return err })
	mount := strings.TrimSuffix(image, ".img") + "." + kind
	if err := os.Mkdir(mount, 0o755); err != nil {
		return "", err
	}
	if _, err := command("mount", device, mount); err != nil {
		return "", err
	}
	s.later(func() error { return loopfs.Unmount(mount) })
	return mount, nil
}

// armed does something under which a mount is frozen. Whatever happens, the
// mount is thawed.
func armed(mount string, do func() error) error {
	stop, err := loopfs.ThawAfter(mount, 40*time.Second)
	if err != nil {
		return err
	}
	defer stop()
	return do()
}

func command(args ...string) (string, error) {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// child is this program in one of its roles. It is told to end by the end of its
// input.
type child struct {
	cmd   *exec.Cmd
	leash io.Closer
	lines *bufio.Scanner
}

// begin starts a role and waits for its first line.
func begin(role string, args ...string) (*child, error) {
	c := &child{cmd: exec.Command("/proc/self/exe", append([]string{role}, args...)...)}
	c.cmd.Stderr = os.Stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	c.leash, c.lines = in, bufio.NewScanner(out)
	if !c.lines.Scan() {
		return nil, errors.Join(fmt.Errorf("%s did not start", role), c.end())
	}
	return c, nil
}

// end ends the child and waits for it.
func (c *child) end() error {
	_ = c.leash.Close()
	for c.lines.Scan() {
	}
	return c.cmd.Wait()
}

// now is CLOCK_MONOTONIC, which all processes share.
func now() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}
