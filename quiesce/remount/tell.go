package remount

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Difference tells two disks apart, whose filesystems may have the same id, as a
// snapshot's and the original's have: by the first block in which they differ.
type Difference struct {
	Offset     int64  // of the block, in bytes; -1 for directories, which are told apart by their ids
	One, Other string // what each has there
}

// ErrSame is returned for two disks that hold the same, to the last byte.
var ErrSame = errors.New("the two disks hold the same")

// blockSize is that of the blocks that are compared, in bytes.
const blockSize = 1 << 20

// Differ finds a difference between two disks, neither of which is mounted. It reads
// both until there is one, or ctx ends: the error has its cause.
func Differ(ctx context.Context, one, other string) (Difference, error) {
	d, err := bounded(ctx, func() (Difference, error) { return differ(ctx, one, other) })
	if err != nil && !errors.Is(err, ErrSame) {
		err = fmt.Errorf("cannot compare the disks %q and %q: %w", one, other, err)
	}
	return d, err
}

func differ(ctx context.Context, one, other string) (Difference, error) {
	if id, err := subvolumeID(one); err == nil {
		otherID, err := subvolumeID(other)
		if err == nil && id == otherID {
			err = ErrSame
		}
		return Difference{-1, id, otherID}, err
	}
	a, err := openDisk(one)
	if err != nil {
		return Difference{}, err
	}
	defer func() { _ = a.Close() }()
	b, err := openDisk(other)
	if err != nil {
		return Difference{}, err
	}
	defer func() { _ = b.Close() }()
	for at := int64(0); ; at += blockSize {
		x, errA := readBlock(a, at)
		y, errB := readBlock(b, at)
		switch err := errors.Join(errA, errB, context.Cause(ctx)); {
		case err != nil:
			return Difference{}, err
		case !bytes.Equal(x, y):
			return Difference{at, sum(x), sum(y)}, nil
		case len(x) == 0:
			return Difference{}, ErrSame
		}
	}
}

// IsOne says whether the disk at a path is the first of the two; it is an error if it is
// neither.
func (d Difference) IsOne(path string) (bool, error) {
	found, err := d.at(path)
	switch {
	case err != nil:
		return false, fmt.Errorf("cannot tell which disk is at %q: %w", path, err)
	case found != d.One && found != d.Other:
		return false, fmt.Errorf("cannot tell which disk is at %q: it is neither of the two, or was changed", path)
	}
	return found == d.One, nil
}

func (d Difference) at(path string) (string, error) {
	if d.Offset < 0 {
		return subvolumeID(path)
	}
	f, err := openDisk(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	block, err := readBlock(f, d.Offset)
	return sum(block), err
}

// openDisk opens a block device to be read as it is, not as it was when somebody read it
// before: a filesystem may have written past what the kernel keeps of the device.
func openDisk(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("cannot read %q anew: %w", path, err)
	}
	return f, nil
}

// readBlock reads a block, which is shorter at the disk's end, and empty after it.
func readBlock(f *os.File, at int64) ([]byte, error) {
	block := make([]byte, blockSize)
	n, err := f.ReadAt(block, at)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return block[:n], err
}

func sum(block []byte) string {
	s := sha256.Sum256(block)
	return hex.EncodeToString(s[:])
}
