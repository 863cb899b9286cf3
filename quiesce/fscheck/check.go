package fscheck

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Result is what a checker found.
type Result struct {
	Filesystem string // ext4, xfs, btrfs; "" where there is data, but no filesystem that is known
	Tool       string // that checked it
	Device     string // that it is on: a partition of what was given, or that itself; a directory for a subvolume
	OK         bool   // false: it is damaged
	Output     string // the end of what the tool printed
}

// ErrEmpty is returned for a disk of zeros: nothing was put on it.
var ErrEmpty = errors.New("it holds nothing but zeros")

// MissingError is returned where a program is not installed.
type MissingError struct {
	Program, Package string // Package of Debian and Ubuntu
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s is not installed (package %s)", e.Program, e.Package)
}

// checker checks one type of filesystem on a device.
type checker struct {
	tool  string
	check func(ctx context.Context, device string) (verdict, error)
}

// verdict is a checker's word.
type verdict struct {
	ok     bool
	output string
}

// checkers are those for each type, as blkid(8) names it.
var checkers = map[string]checker{
	"ext2":  {"e2fsck", checkExt},
	"ext3":  {"e2fsck", checkExt},
	"ext4":  {"e2fsck", checkExt},
	"xfs":   {"xfs_repair", checkXFS},
	"btrfs": {"btrfs", checkBtrfs},
}

// Check checks the filesystem on a block device, or on its one partition, which is a
// throw-away copy: journals are replayed. A directory, on btrfs, is read in full, which
// verifies checksums. The device must be in use by nobody.
//
// The error says why it could not be checked, which tells nothing of the filesystem;
// it is ErrEmpty for a device of zeros, *MissingError without the program, and the
// cause of ctx where that ended.
func Check(ctx context.Context, path string) (Result, error) {
	r, err := check(ctx, path)
	if err != nil {
		return r, fmt.Errorf("cannot check %q: %w", path, err)
	}
	return r, nil
}

func check(ctx context.Context, path string) (Result, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Result{}, err
	}
	if info.IsDir() {
		return checkDirectory(ctx, path)
	}
	found, err := find(ctx, path)
	if err != nil {
		return Result{}, err
	}
	r := Result{Filesystem: found.fstype, Device: found.device, Tool: "blkid"}
	if found.fstype == "" {
		r.Output = "it holds data, but no filesystem that is known"
		return r, nil
	}
	c, ok := checkers[found.fstype]
	if !ok {
		return r, fmt.Errorf("%s holds %s, of which no checker is known", found.device, found.fstype)
	}
	r.Tool = c.tool
	if _, err := look(c.tool); err != nil {
		return r, err
	}
	v, err := c.check(ctx, found.device)
	r.OK, r.Output = v.ok, v.output
	return r, err
}
