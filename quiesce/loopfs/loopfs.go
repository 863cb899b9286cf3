// Package loopfs makes real filesystems in image files and mounts them through
// loop devices, for the tests, the benchmarks and the demonstration. It needs
// root, and mkfs of each type that is asked for.
package loopfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// MinXFS is the smallest size at which mkfs.xfs makes a filesystem with
// reflinks, in bytes.
const MinXFS = 300 << 20

// FS is a mounted filesystem in an image file.
type FS struct {
	Image string // path of the image
	Mount string // mount point
}

// mkfs are the commands that make a filesystem in an image that follows them.
var mkfs = map[string][]string{
	"ext4":  {"mkfs.ext4", "-q", "-F"},
	"xfs":   {"mkfs.xfs", "-q", "-f", "-m", "reflink=1"},
	"btrfs": {"mkfs.btrfs", "-q", "-f"},
}

// Make makes a filesystem of a type in a new sparse image of size bytes, and
// mounts it at a new directory. Both lie in dir under name.
func Make(dir, name, fstype string, size int64) (*FS, error) {
	f := &FS{Image: filepath.Join(dir, name+".img"), Mount: filepath.Join(dir, name)}
	image, err := os.OpenFile(f.Image, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(image.Truncate(size), image.Close()); err != nil {
		return nil, err
	}
	if err := Format(f.Image, fstype); err != nil {
		return nil, err
	}
	return f, Mount(f.Image, f.Mount)
}

// Format makes a filesystem in an image that is there.
func Format(image, fstype string) error {
	command, ok := mkfs[fstype]
	if !ok {
		return fmt.Errorf("cannot make a filesystem of type %q", fstype)
	}
	return execute(append(command, image)...)
}

// Mount mounts an image at a directory, which it makes, with mount(8)'s
// options added to "loop". What is still mounted there when the caller's process has
// ended, be it killed, is thawed and unmounted.
func Mount(image, at string, options ...string) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	after, err := afterwards()
	if err != nil {
		return fmt.Errorf("cannot have %q unmounted in the end: %w", at, err)
	}
	if _, err := fmt.Fprintln(after, at); err != nil {
		return fmt.Errorf("cannot have %q unmounted in the end: %w", at, err)
	}
	return execute("mount", "-o", strings.Join(append([]string{"loop"}, options...), ","), image, at)
}

// afterwards starts a process, once, that waits for this one's end. It then thaws and
// unmounts, the newest first, what is still mounted of the mount points that it was
// told.
var afterwards = sync.OnceValues(func() (io.Writer, error) {
	cmd := exec.Command("sh", "-c", `tac | while IFS= read -r at; do fsfreeze -u "$at"; umount -l "$at"; done 2>/dev/null`)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	told, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return told, cmd.Start()
})

// unmountTries bounds the wait for somebody who still uses a filesystem.
const unmountTries = 50

// Unmount unmounts what is mounted at a directory and thereby frees its loop
// device. It tries again for a while: processes that were just killed may not
// have let go.
func Unmount(at string) error {
	var err error
	for range unmountTries {
		if err = execute("umount", at); err == nil {
			return os.Remove(at)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// Close unmounts the filesystem and removes its image.
func (f *FS) Close() error {
	return errors.Join(Unmount(f.Mount), os.Remove(f.Image))
}

// ThawAfter starts a process that thaws whatever is frozen at a mount point
// after some seconds, whatever becomes of the caller. Nothing should be frozen
// without one. The function that it returns ends that process, and thaws what a
// failed test may have left: nothing would after that.
func ThawAfter(mount string, after time.Duration) (stop func(), err error) {
	script := `sleep "$1"; fsfreeze -u "$2" 2>/dev/null`
	cmd := exec.Command("sh", "-c", script, "sh", strconv.FormatFloat(after.Seconds(), 'f', 1, 64), mount)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		_ = execute("fsfreeze", "-u", mount)
	}, nil
}

// execute runs a command; its error has what the command printed. A terminal's
// interrupt does not reach it: a mount(8) that ended by that would have mounted, or
// not.
func execute(args ...string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
