package local

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// clone makes dst, which is empty, the same as src. A reflink writes out what
// is dirty of src and then takes the file as it is at one moment; a copy is
// only as consistent as src is quiet.
func clone(dst, src *os.File) (method, error) {
	err := ignoringInterrupts(func() error {
		return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
	})
	if err == nil {
		return reflink, nil
	}
	if !cannotShare(err) {
		return "", fmt.Errorf("cannot reflink: %w", err)
	}
	return copied, sparseCopy(dst, src)
}

// cannotShare tells filesystems that share no blocks, or none between these two
// files, from failures.
func cannotShare(err error) bool {
	for _, refusal := range []error{unix.EOPNOTSUPP, unix.ENOTTY, unix.ENOSYS, unix.EXDEV, unix.EINVAL} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// sparseCopy copies the data of src and leaves its holes.
func sparseCopy(dst, src *os.File) error {
	info, err := src.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if err := dst.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		start, end, err := nextData(src, at, size)
		if err != nil {
			return err
		}
		if err := copyRange(dst, src, start, end); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// nextData returns the bounds of the first data at or after an offset, or size
// twice when only a hole is left.
func nextData(src *os.File, at, size int64) (start, end int64, err error) {
	start, err = src.Seek(at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return size, size, nil
	}
	if err != nil {
		return 0, 0, err
	}
	end, err = src.Seek(start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, err
	}
	return min(start, size), min(end, size), nil
}

// copyRange leaves the way of copying to io.CopyN: copy_file_range, where the
// kernel has it for the two files.
func copyRange(dst, src *os.File, start, end int64) error {
	if start == end {
		return nil
	}
	if _, err := src.Seek(start, io.SeekStart); err != nil {
		return err
	}
	if _, err := dst.Seek(start, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.CopyN(dst, src, end-start); err != nil {
		return fmt.Errorf("cannot copy: %w", err)
	}
	return nil
}

func ignoringInterrupts(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
