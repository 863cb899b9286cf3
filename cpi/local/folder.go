package local

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const sidecarSuffix = ".json"

// folder is a directory of data with its sidecars: disks or snapshots.
type folder struct{ dir string }

func (f folder) sidecar(cid string) string { return filepath.Join(f.dir, cid+sidecarSuffix) }

// create makes the directory under an existing root.
func (f folder) create() error {
	err := os.Mkdir(f.dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(f.dir))
}

// finish makes new data durable, and then exist.
func (f folder) finish(e entry, data *temporary, sidecar any) error {
	if err := data.Sync(); err != nil {
		return err
	}
	t, err := f.writeSidecar(e.cid, sidecar)
	if err != nil {
		return err
	}
	defer t.discard()
	return f.publish(e, data, t)
}

// publish gives a new CID its names, which makes it exist. Both are durable by then;
// the data comes last.
func (f folder) publish(e entry, data, sidecar *temporary) error {
	if err := sidecar.rename(f.sidecar(e.cid)); err != nil {
		return err
	}
	if err := data.rename(e.path); err != nil {
		return errors.Join(err, removeIfThere(f.sidecar(e.cid)))
	}
	return syncDir(f.dir)
}

// remove deletes a CID. The data goes last, and is there to be deleted again after a
// crash.
func (f folder) remove(e entry) error {
	if err := e.removable(e.path); err != nil {
		return err
	}
	if err := removeIfThere(f.sidecar(e.cid)); err != nil {
		return err
	}
	if err := removeData(e.path); err != nil {
		return err
	}
	return syncDir(f.dir)
}

// removeData removes what holds data, of a link the link alone.
func removeData(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return destroySubvolume(path)
	}
	return os.Remove(path)
}

// lock keeps other processes from changing sidecars and deleting until the
// returned function is called, or this process ends.
func (f folder) lock() (unlock func(), err error) {
	dir, err := os.Open(f.dir)
	if err != nil {
		return nil, err
	}
	if err := flock(dir, unix.LOCK_EX); err != nil {
		dir.Close()
		return nil, err
	}
	return func() { dir.Close() }, nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncDir makes durable what was done to the names in a directory. On btrfs it commits the
// transaction if that had to do with subvolumes.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
