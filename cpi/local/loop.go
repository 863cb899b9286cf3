package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// releaseTime bounds the wait for others who have a loop device open, such as udev,
// which looks at every device that changes.
const releaseTime = 10 * time.Second

// loop is a loop device that has an image behind it.
type loop struct {
	path   string // of the device
	status *unix.LoopInfo64
}

// partial says in which way the device is not the whole image, "" if it is.
func (l loop) partial() string {
	switch {
	case l.status.Offset != 0 || l.status.Sizelimit != 0:
		return "a part of it"
	case l.status.Flags&unix.LO_FLAGS_READ_ONLY != 0:
		return "read-only"
	}
	return ""
}

// attach answers with the device that is there, an operator's mount -o loop for
// example: a second one of the same image would have a cache of its own.
func (i images) attach(path string) (string, error) {
	image, err := openImage(path, os.O_RDWR)
	if err != nil {
		return "", err
	}
	defer image.Close()
	loops, err := loopsOf(image)
	if err != nil {
		return "", err
	}
	for _, l := range loops {
		if how := l.partial(); how != "" {
			return "", fmt.Errorf("%s has %s already", l.path, how)
		}
	}
	if len(loops) > 0 {
		return loops[0].path, nil
	}
	return newLoop(image)
}

// detach makes what was written through the device durable in the image.
func (i images) detach(path string) error {
	image, err := i.open(path)
	if err != nil {
		return err
	}
	defer image.Close()
	loops, err := loopsOf(image)
	if err != nil {
		return err
	}
	for _, l := range loops {
		if err := l.release(image); err != nil {
			return err
		}
	}
	return image.Sync()
}

func (i images) attached(path string) (string, error) {
	image, err := i.open(path)
	if err != nil {
		return "", err
	}
	defer image.Close()
	loops, err := loopsOf(image)
	if err != nil || len(loops) == 0 {
		return "", err
	}
	return loops[0].path, nil
}

// loopsOf asks the kernel which file is behind each loop device: the path that sysfs
// has of it is that of when it was attached.
func loopsOf(image *os.File) ([]loop, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(image.Fd()), &stat); err != nil {
		return nil, err
	}
	bound, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, err
	}
	var found []loop
	for _, path := range bound {
		l, err := loopAt("/dev/" + strings.Split(path, "/")[3])
		if err != nil {
			return nil, err
		}
		if l.status != nil && isOf(l.status, stat) {
			found = append(found, l)
		}
	}
	return found, nil
}

func isOf(status *unix.LoopInfo64, image unix.Stat_t) bool {
	return status.Inode == image.Ino && status.Device == image.Dev
}

// loopAt returns a device's state, without status if it has no image.
func loopAt(path string) (loop, error) {
	device, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) {
		return loop{path: path}, nil
	}
	if err != nil {
		return loop{}, err
	}
	defer device.Close()
	status, err := unix.IoctlLoopGetStatus64(int(device.Fd()))
	if errors.Is(err, unix.ENXIO) {
		return loop{path: path}, nil
	}
	if err != nil {
		return loop{}, fmt.Errorf("cannot ask %s for its image: %w", path, err)
	}
	return loop{path, status}, nil
}

// newLoop takes a free device. It stays until it is released, whoever ends.
func newLoop(image *os.File) (string, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", fmt.Errorf("cannot get a loop device: %w", err)
		}
		path := fmt.Sprintf("/dev/loop%d", n)
		err = configureLoop(path, image)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, unix.EBUSY) { // somebody else has taken it
			return "", fmt.Errorf("cannot attach %s: %w", path, err)
		}
	}
}

func configureLoop(path string, image *os.File) error {
	device, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer device.Close()
	return unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{Fd: uint32(image.Fd())})
}

// release lets the image go. A device that is mounted, or part of another device, is
// refused: it would be let go whenever that ends.
func (l loop) release(image *os.File) error {
	device, err := os.OpenFile(l.path, os.O_RDONLY|os.O_EXCL|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s is in use", l.path)
	}
	if err != nil {
		return err
	}
	err = clearLoop(device, image)
	device.Close() // the last one to close it lets the image go
	if err != nil {
		return fmt.Errorf("cannot release %s: %w", l.path, err)
	}
	return l.awaitRelease(image)
}

// clearLoop does nothing to a device that is somebody else's by now.
func clearLoop(device, image *os.File) error {
	var stat unix.Stat_t
	if err := unix.Fstat(int(image.Fd()), &stat); err != nil {
		return err
	}
	status, err := unix.IoctlLoopGetStatus64(int(device.Fd()))
	if errors.Is(err, unix.ENXIO) || err == nil && !isOf(status, stat) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = unix.IoctlRetInt(int(device.Fd()), unix.LOOP_CLR_FD)
	return err
}

func (l loop) awaitRelease(image *os.File) error {
	for end := time.Now().Add(releaseTime); ; time.Sleep(5 * time.Millisecond) {
		loops, err := loopsOf(image)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(loops, func(other loop) bool { return other.path == l.path }) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s is in use", l.path)
		}
	}
}
