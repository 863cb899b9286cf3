package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const temporaryPrefix = ".tmp-"

// temporary is a file, or a subvolume, that is not whole yet. Its maker holds a lock on it,
// which the kernel releases when the maker dies: an unlocked temporary is
// nobody's. Its name is never used again, so that whoever removes it removes no
// other.
type temporary struct {
	*os.File
	path string
}

// temporary makes the file for what shall be called name.
func (f folder) temporary(name string) (*temporary, error) {
	path := filepath.Join(f.dir, temporaryPrefix+name)
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, err
		}
		t := &temporary{file, path}
		mine, err := lockLinked(file)
		if err != nil {
			t.discard()
			return nil, err
		}
		if mine {
			return t, nil
		}
		// A sweep of another process came between creation and lock.
		file.Close()
	}
}

// lockLinked takes the lock and reports whether the file still has a name.
func lockLinked(file *os.File) (bool, error) {
	if err := flock(file, unix.LOCK_EX); err != nil {
		return false, err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		return false, err
	}
	return stat.Nlink > 0, nil
}

// rename gives it its name, and lets go of it.
func (t *temporary) rename(path string) error {
	if err := os.Rename(t.path, path); err != nil {
		return err
	}
	t.path = ""
	return t.Close()
}

// discard removes what was not renamed. It may be called after rename,
// and does nothing then.
func (t *temporary) discard() {
	if t.path != "" {
		_ = removeData(t.path)
		t.Close()
	}
}

// sweep removes what processes that died left behind: temporaries, and after
// them sidecars whose data never got its name.
func (f folder) sweep() error {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return fmt.Errorf("cannot look for what an earlier call left: %w", err)
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), temporaryPrefix) {
			err = errors.Join(err, sweepTemporary(filepath.Join(f.dir, entry.Name())))
		}
	}
	for _, entry := range entries {
		if cid, ok := strings.CutSuffix(entry.Name(), sidecarSuffix); ok && ours(cid) {
			err = errors.Join(err, f.sweepSidecar(cid))
		}
	}
	if err != nil {
		return fmt.Errorf("cannot remove what an earlier call left: %w", err)
	}
	return nil
}

func sweepTemporary(path string) error {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if err := flock(file, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil // its maker is at work
		}
		return err
	}
	err = removeData(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// sweepSidecar looks for temporary data first: publish renames it to the data, so that
// in this order one of the two is seen as long as the maker lives.
func (f folder) sweepSidecar(cid string) error {
	for _, prefix := range []string{temporaryPrefix, ""} {
		for _, d := range drivers() {
			_, err := os.Lstat(f.entry(d, prefix+cid).path)
			if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return removeIfThere(f.sidecar(cid))
}

func flock(file *os.File, how int) error {
	return ignoringInterrupts(func() error { return unix.Flock(int(file.Fd()), how) })
}
