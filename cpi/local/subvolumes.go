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

// subvolumes is the driver whose data is a subvolume of btrfs: a directory, used where
// it lies or mounted elsewhere by the operator.
type subvolumes struct{}

func (subvolumes) name() string { return "btrfs" }

func (subvolumes) suffix() string { return "" }

// claims leaves alone what has the names of images and sidecars.
func (subvolumes) claims(path string, info fs.FileInfo) bool {
	if strings.HasSuffix(path, imageSuffix) || strings.HasSuffix(path, sidecarSuffix) {
		return false
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return true
	}
	if !info.IsDir() {
		return false
	}
	file, err := openSubvolume(path)
	if err != nil {
		return false
	}
	file.Close()
	return true
}

func (subvolumes) open(path string) (*os.File, error) { return openSubvolume(path) }

func openSubvolume(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	if err := checkSubvolume(file); err != nil {
		file.Close()
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return file, nil
}

func checkSubvolume(file *os.File) error {
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		return err
	}
	btrfs, err := isBtrfs(file)
	if err == nil && (!btrfs || stat.Ino != subvolInode) {
		err = errors.New("not a subvolume of btrfs")
	}
	return err
}

// snapshot refuses a subvolume with others within it: in a snapshot they are empty
// directories.
func (s subvolumes) snapshot(f folder, cid string, source *os.File) (*temporary, method, error) {
	if err := notNested(source); err != nil {
		return nil, "", err
	}
	t, err := s.temporary(f, cid, func(dir *os.File, name string) error {
		return snapshotSubvolume(dir, name, source, true)
	})
	return t, subvolume, err
}

// disk heeds no size: a disk of this driver is as large as its filesystem.
func (s subvolumes) disk(f folder, cid string, _ int64, source *os.File) (*temporary, error) {
	t, err := s.temporary(f, cid, func(dir *os.File, name string) error {
		if source != nil {
			return snapshotSubvolume(dir, name, source, false)
		}
		return createSubvolume(dir, name)
	})
	if err != nil || source != nil {
		return t, err
	}
	if err := t.Chmod(0o755); err != nil { // as mkfs leaves a filesystem
		t.discard()
		return nil, err
	}
	return t, nil
}

// temporary has the subvolume made for what shall be called cid, again if a sweep of
// another process removes it before it is locked.
func (subvolumes) temporary(f folder, cid string, create func(dir *os.File, name string) error) (*temporary, error) {
	dir, err := os.Open(f.dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if btrfs, err := isBtrfs(dir); err != nil || !btrfs {
		return nil, errors.Join(err, fmt.Errorf("%q is not on btrfs", f.dir))
	}
	name := temporaryPrefix + cid
	path := filepath.Join(f.dir, name)
	for {
		if err := create(dir, name); err != nil {
			return nil, err
		}
		t, err := lockSubvolume(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return t, err
		}
	}
}

// lockSubvolume takes a new subvolume for its maker. The error is fs.ErrNotExist if it
// was swept before.
func lockSubvolume(path string) (*temporary, error) {
	file, err := openSubvolume(path)
	if err != nil {
		return nil, err
	}
	t := &temporary{file, path}
	if err := flock(file, unix.LOCK_EX); err != nil {
		t.discard()
		return nil, err
	}
	if _, err := os.Lstat(path); err != nil {
		file.Close()
		return nil, err
	}
	return t, nil
}

// attach has nothing to do.
func (s subvolumes) attach(path string) (string, error) {
	file, err := s.open(path)
	if err != nil {
		return "", err
	}
	return path, file.Close()
}

func (s subvolumes) detach(path string) error {
	at, err := s.attached(path)
	if err == nil && at != "" {
		err = fmt.Errorf("it is mounted at %q", at)
	}
	return err
}

// attached looks for mounts, from which the kernel does not protect a subvolume.
func (s subvolumes) attached(path string) (string, error) {
	file, err := s.open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	return mountOf(file, path)
}

// removable asks before the kernel does, when a sidecar is gone already.
func (subvolumes) removable(path string) error {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() { // of a link the link alone is removed
		return err
	}
	file, err := openSubvolume(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return notNested(file)
}

// measure has nothing to go by: what a subvolume takes is known where quotas are on, and
// its size is the filesystem's.
func (subvolumes) measure(*os.File) (used, size int64, err error) { return 0, 0, nil }
