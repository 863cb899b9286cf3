package local

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	imageSuffix   = ".img"
	sidecarSuffix = ".json"
)

// folder is a directory of images with their sidecars: disks or snapshots.
type folder struct{ dir string }

func (f folder) image(cid string) string   { return filepath.Join(f.dir, cid+imageSuffix) }
func (f folder) sidecar(cid string) string { return filepath.Join(f.dir, cid+sidecarSuffix) }

// open returns the CID's image for reading, through a symbolic link if it is
// one. The error is fs.ErrNotExist when there is no such CID.
func (f folder) open(cid string) (*os.File, error) {
	// Without O_NONBLOCK a link to a pipe would be waited for.
	file, err := os.OpenFile(f.image(cid), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: f.image(cid), Err: errors.New("not a regular file")}
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// has reports whether the CID is there. A symbolic link counts even when the
// image behind it is gone.
func (f folder) has(cid string) (bool, error) {
	_, err := os.Lstat(f.image(cid))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// list returns the CIDs in the order of their names.
func (f folder) list() ([]string, error) {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var cids []string
	for _, entry := range entries {
		cid, ok := strings.CutSuffix(entry.Name(), imageSuffix)
		if ok && checkCID(cid) == nil {
			cids = append(cids, cid)
		}
	}
	return cids, err
}

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

// finish makes a new image durable, and then exist.
func (f folder) finish(cid string, image *temporary, sidecar any) error {
	if err := image.Sync(); err != nil {
		return err
	}
	t, err := f.writeSidecar(cid, sidecar)
	if err != nil {
		return err
	}
	defer t.discard()
	return f.publish(cid, image, t)
}

// publish gives a new CID its names, which makes it exist. Both files are
// durable by then; the image comes last.
func (f folder) publish(cid string, image, sidecar *temporary) error {
	if err := sidecar.rename(f.sidecar(cid)); err != nil {
		return err
	}
	if err := image.rename(f.image(cid)); err != nil {
		return errors.Join(err, removeIfThere(f.sidecar(cid)))
	}
	return syncDir(f.dir)
}

// remove deletes a CID. The image goes last, and is there to be deleted again
// after a crash. The error is fs.ErrNotExist when there is no such CID.
func (f folder) remove(cid string) error {
	if _, err := os.Lstat(f.image(cid)); err != nil {
		return err
	}
	if err := removeIfThere(f.sidecar(cid)); err != nil {
		return err
	}
	if err := os.Remove(f.image(cid)); err != nil {
		return err
	}
	return syncDir(f.dir)
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

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
