package fscheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// found is where a filesystem is.
type found struct {
	device string
	fstype string // as blkid(8) names it, "" for none
}

// find looks for the filesystem on a device: on all of it, or on its one partition.
func find(ctx context.Context, device string) (found, error) {
	if err := unused(device); err != nil {
		return found{}, err
	}
	on, err := probe(ctx, device)
	if err != nil || on["TYPE"] != "" {
		return found{device, on["TYPE"]}, err
	}
	if on["PTTYPE"] == "" {
		return found{device: device}, notEmpty(device)
	}
	parts, err := partitions(ctx, device)
	if err != nil {
		return found{}, err
	}
	var all []found
	for _, part := range parts {
		on, err := probe(ctx, part)
		if err != nil {
			return found{}, err
		}
		if on["TYPE"] != "" {
			all = append(all, found{part, on["TYPE"]})
		}
	}
	switch len(all) {
	case 0:
		return found{device: device}, nil
	case 1:
		return all[0], nil
	}
	return found{}, fmt.Errorf("%d of its partitions hold filesystems", len(all))
}

// unused refuses a device that is mounted, or has a partition that is, or is part of
// something else: what it holds is no throw-away copy.
func unused(device string) error {
	f, err := os.OpenFile(device, os.O_RDONLY|unix.O_EXCL|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EBUSY) {
		return errors.New("it is in use")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeDevice == 0 {
		return errors.Join(err, errors.New("it is neither a block device nor a directory"))
	}
	return nil
}

// probe says what blkid(8) finds on a device, by its names of it.
func probe(ctx context.Context, device string) (map[string]string, error) {
	const nothing, several = 2, 8
	out, err := run(ctx, "blkid", "-p", "-o", "export", "--", device)
	if err != nil {
		return nil, err
	}
	switch out.status {
	case 0:
	case nothing:
		return nil, nil
	case several:
		return nil, fmt.Errorf("%s holds the marks of more than one filesystem", device)
	default:
		return nil, out.failed()
	}
	on := map[string]string{}
	for line := range strings.Lines(out.text) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			on[name] = value
		}
	}
	return on, nil
}

// partitions are those of a disk. The kernel finds them where a disk is attached, but
// not on loop devices: there they are added.
func partitions(ctx context.Context, device string) ([]string, error) {
	if known := knownPartitions(device); len(known) > 0 {
		return known, nil
	}
	out, err := run(ctx, "partx", "--add", "--", device)
	if err != nil {
		return nil, err
	}
	known := knownPartitions(device)
	if len(known) == 0 {
		return nil, fmt.Errorf("the kernel finds no partitions: %w", out.failed())
	}
	return known, nil
}

// Forget has the kernel forget the partitions of a device, which is about to be detached:
// those of a loop device would stay.
func Forget(ctx context.Context, device string) error {
	if len(knownPartitions(device)) == 0 {
		return nil
	}
	out, err := run(ctx, "partx", "--delete", "--", device)
	if err == nil && len(knownPartitions(device)) > 0 {
		err = out.failed()
	}
	if err != nil {
		return fmt.Errorf("cannot forget the partitions of %q: %w", device, err)
	}
	return nil
}

func knownPartitions(device string) []string {
	if target, err := filepath.EvalSymlinks(device); err == nil {
		device = target
	}
	marks, _ := filepath.Glob(filepath.Join("/sys/class/block", filepath.Base(device), "*", "partition"))
	var all []string
	for _, mark := range marks {
		all = append(all, "/dev/"+filepath.Base(filepath.Dir(mark)))
	}
	slices.Sort(all)
	return all
}

// notEmpty returns ErrEmpty where a device looks as if it was never written to. A filesystem
// has something in its first MiB, or, where that is damaged, in many other places.
func notEmpty(device string) error {
	const head, sample, samples = 1 << 20, 4 << 10, 1024
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if some, err := anything(f, 0, min(head, size)); some || err != nil {
		return err
	}
	for i := range int64(samples) {
		at := size / samples * i / sample * sample
		if some, err := anything(f, at, min(sample, size-at)); some || err != nil {
			return err
		}
	}
	return ErrEmpty
}

// anything says whether n bytes at a place are not all zero.
func anything(f *os.File, at, n int64) (bool, error) {
	text := make([]byte, n)
	if _, err := f.ReadAt(text, at); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return len(bytes.Trim(text, "\x00")) > 0, nil
}
