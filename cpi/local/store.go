package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/cpi"
)

// Store keeps disks and snapshots under a root directory. Any number of processes may
// use one root at a time.
//
// Its errors are *cpi.Error: NoDiskSpace when the filesystem is full or a quota used up,
// DiskNotFound for a disk that is not there, CpiError for arguments that cannot be used,
// and CloudError for the rest.
type Store struct {
	// Driver has the new disks whose properties name none; empty means image.
	Driver string

	root             string
	disks, snapshots folder
	notes            io.Writer
}

// Open uses a root that exists: one that does not is a filesystem that is not mounted
// rather than an empty store. Notes on what was done go to notes.
func Open(root string, notes io.Writer) (*Store, error) {
	if !filepath.IsAbs(root) {
		return nil, cpi.Errorf(cpi.CpiError, "cannot use %q as root: not an absolute path", root)
	}
	info, err := os.Stat(root)
	if err != nil {
		return nil, cpi.Errorf(cpi.CpiError, "cannot use %q as root: %v", root, errors.Unwrap(err))
	}
	if !info.IsDir() {
		return nil, cpi.Errorf(cpi.CpiError, "cannot use %q as root: not a directory", root)
	}
	return &Store{
		root:      root,
		disks:     folder{filepath.Join(root, "disks")},
		snapshots: folder{filepath.Join(root, "snapshots")},
		notes:     notes,
	}, nil
}

// prepare makes a folder ready for a new CID.
func (s *Store) prepare(f folder) error {
	if err := f.create(); err != nil {
		return err
	}
	s.sweep(f)
	return nil
}

// sweep fails no call: what lies there is only in the way of space.
func (s *Store) sweep(f folder) {
	if err := f.sweep(); err != nil {
		fmt.Fprintln(s.notes, err)
	}
}

// alone keeps other processes from changing what is in a folder while do works.
func (s *Store) alone(f folder, do func() error) error {
	unlock, err := f.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s.sweep(f)
	return do()
}

// failed says what could not be done, and why, in BOSH's terms.
func failed(err error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	var known *cpi.Error
	switch {
	case errors.As(err, &known):
		return cpi.Errorf(known.Type, "%s: %s", what, known.Message)
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		return cpi.Errorf(cpi.NoDiskSpace, "%s: %v", what, err)
	}
	return cpi.Errorf(cpi.CloudError, "%s: %v", what, err)
}

// notFound is failed for what is done to a disk that must be there.
func notFound(err error, format string, args ...any) error {
	if errors.Is(err, fs.ErrNotExist) {
		return cpi.Errorf(cpi.DiskNotFound, "%s: it is not there", fmt.Sprintf(format, args...))
	}
	return failed(err, format, args...)
}
