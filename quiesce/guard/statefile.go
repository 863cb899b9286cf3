package guard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultDir is where state files are kept.
const DefaultDir = "/run/quiesced"

// stateFile is an open state file.
type stateFile struct {
	path string
	file *os.File
}

func statePath(dir, runID string) string {
	return filepath.Join(dir, "guard-"+runID+".state")
}

// statePaths returns the paths of all state files in dir, which may be missing.
func statePaths(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "guard-") && strings.HasSuffix(e.Name(), ".state") {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// createState writes rec to a state file in dir. The file has no name until it
// is complete. It refuses a directory on one of rec's filesystems: the guard
// would block on its own record.
func createState(dir string, rec *Record) (*stateFile, error) {
	contents, err := rec.encode()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := offFrozen(dir, rec.Filesystems); err != nil {
		return nil, err
	}
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "create a file in", Path: dir, Err: err}
	}
	s := &stateFile{path: statePath(dir, rec.RunID), file: os.NewFile(uintptr(fd), "state")}
	if err = s.publish(contents); err != nil {
		s.file.Close()
		return nil, err
	}
	return s, nil
}

func offFrozen(dir string, filesystems []Filesystem) error {
	at, err := Identify(dir)
	for _, f := range filesystems {
		if err == nil && f.Major == at.Major && f.Minor == at.Minor {
			err = fmt.Errorf("state directory %q lies on %q, which is to be frozen", dir, f.Path)
		}
	}
	return err
}

func (s *stateFile) publish(contents []byte) error {
	if _, err := s.file.WriteAt(contents, 0); err != nil {
		return err
	}
	return unix.Linkat(unix.AT_FDCWD, s.self(), unix.AT_FDCWD, s.path, unix.AT_SYMLINK_FOLLOW)
}

// self is a path that leads to the open file, with a name or without.
func (s *stateFile) self() string {
	return "/proc/self/fd/" + strconv.Itoa(int(s.file.Fd()))
}

// openState opens the state file at path.
func openState(path string) (*stateFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	return &stateFile{path: path, file: f}, nil
}

// reopen returns another description of the file: one that does not share the
// lock, which a child held up in the kernel would keep.
func (s *stateFile) reopen() (*os.File, error) {
	return os.OpenFile(s.self(), os.O_RDWR, 0)
}

// read returns what the file says now. Reading sees what the guard stores in
// its mapping; the words are settled when the guard has answered, or is gone.
func (s *stateFile) read() (*Record, error) {
	b, err := io.ReadAll(io.NewSectionReader(s.file, 0, maxStateSize+1))
	if err != nil {
		return nil, err
	}
	r, err := ParseRecord(b)
	if err != nil {
		return nil, fmt.Errorf("cannot parse %q: %w", s.path, err)
	}
	return r, nil
}

// awaitCanary reads the file when the canary has seen every thaw, or takes too
// long for that.
func (s *stateFile) awaitCanary() (*Record, error) {
	for until := time.Now().Add(fencePatience); ; time.Sleep(time.Millisecond) {
		rec, err := s.read()
		if err != nil || time.Now().After(until) || !slices.ContainsFunc(rec.Cells, Cell.unseen) {
			return rec, err
		}
	}
}

// lock keeps others from recovering the file at the same time. Taken again, it
// is the same lock; unlock, or the file's end, releases it.
func (s *stateFile) lock(ctx context.Context) error {
	for {
		err := unix.Flock(int(s.file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot lock %q: %w", s.path, context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (s *stateFile) unlock() { _ = unix.Flock(int(s.file.Fd()), unix.LOCK_UN) }

// removed says whether the file has no name any more: somebody resolved it.
func (s *stateFile) removed() bool {
	var st unix.Stat_t
	return unix.Fstat(int(s.file.Fd()), &st) == nil && st.Nlink == 0
}

// remove removes the file's name, once.
func (s *stateFile) remove() error {
	if s.removed() {
		return nil
	}
	if err := os.Remove(s.path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (s *stateFile) close() { s.file.Close() }
