package local

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/cpi"
)

const imageSuffix = ".img"

// images is the driver whose data is an image file, which is attached by a loop device.
type images struct{}

func (images) name() string { return "image" }

func (images) suffix() string { return imageSuffix }

// claims leaves it to open to say what is wrong with something else than an image.
func (images) claims(string, fs.FileInfo) bool { return true }

func (images) open(path string) (*os.File, error) { return openImage(path, os.O_RDONLY) }

func openImage(path string, how int) (*os.File, error) {
	// Without O_NONBLOCK a link to a pipe would be waited for.
	file, err := os.OpenFile(path, how|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func (images) snapshot(f folder, cid string, source *os.File) (*temporary, method, error) {
	image, err := f.temporary(cid + imageSuffix)
	if err != nil {
		return nil, "", err
	}
	how, err := clone(image.File, source)
	if err == nil {
		err = image.Chmod(0o400)
	}
	if err != nil {
		image.discard()
		return nil, "", err
	}
	return image, how, nil
}

func (images) disk(f folder, cid string, size int64, source *os.File) (*temporary, error) {
	if err := checkGrowth(source, size); err != nil {
		return nil, err
	}
	image, err := f.temporary(cid + imageSuffix)
	if err != nil {
		return nil, err
	}
	if source != nil {
		_, err = clone(image.File, source)
	}
	if err == nil {
		err = image.Truncate(size)
	}
	if err != nil {
		image.discard()
		return nil, err
	}
	return image, nil
}

func checkGrowth(source *os.File, size int64) error {
	if source == nil {
		return nil
	}
	info, err := source.Stat()
	if err != nil {
		return err
	}
	if least := (info.Size() + 1<<20 - 1) >> 20; size < info.Size() {
		return cpi.Errorf(cpi.CpiError, "it must have %d MiB at least, as the snapshot has", least)
	}
	return nil
}

func (images) removable(string) error { return nil }

func (images) measure(image *os.File) (used, size int64, err error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(image.Fd()), &stat); err != nil {
		return 0, 0, err
	}
	return stat.Blocks * 512, stat.Size, nil
}
