package quiesce

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// extent is what a snapshot of one disk covers: whole devices and everything
// that is stacked upon them.
type extent struct {
	survey  *Survey
	devices []string
	found   []found
}

// extentOf goes down from devices to the whole ones and up again to every device
// and every superblock upon them that the survey's own mount table shows.
func (s *Survey) extentOf(devices []string) *extent {
	e := &extent{survey: s}
	for _, device := range devices {
		for _, whole := range s.wholes(device) {
			e.device(whole)
		}
	}
	return e
}

func (e *extent) device(name string) {
	if slices.Contains(e.devices, name) {
		return
	}
	e.devices = append(e.devices, name)
	s := e.survey
	for _, upper := range slices.Concat(s.partitions(name), s.holders(name), s.loopsOn(s.number(name))) {
		e.device(upper)
	}
	for _, m := range s.users[name] {
		e.add(found{view: s, mount: m})
	}
}

// add adds a superblock and the nested images on it.
func (e *extent) add(f found) {
	sb := superblockOf(f.mount)
	if e.has(sb) {
		return
	}
	e.found = append(e.found, f)
	for _, loop := range f.view.loopsOn(sb) {
		e.device(loop)
	}
}

func (e *extent) has(sb Superblock) bool {
	return slices.ContainsFunc(e.found, func(f found) bool { return superblockOf(f.mount) == sb })
}

// use is what is known of the use of a block device.
type use int

const (
	unknown use = iota
	free        // by nobody
	known       // by a mount, a mapped device or an array, itself or a part of it
	claimed     // by somebody that the survey's own tables do not show
)

// uses finds out about devices, each once.
type uses struct {
	survey *Survey
	known  map[string]bool // devices whose users are told by another table
	found  map[string]use
}

// of tells the use of a device. One whose user is known is not opened, nor is a
// disk of which a partition is in use: it always seems to be claimed.
func (u *uses) of(name string) (use, error) {
	if u.found[name] != unknown {
		return u.found[name], nil
	}
	found, err := u.look(name)
	u.found[name] = found
	return found, err
}

func (u *uses) look(name string) (use, error) {
	s := u.survey
	if u.known[name] || len(s.users[name]) > 0 || len(s.holders(name)) > 0 {
		return known, nil
	}
	for _, part := range s.partitions(name) {
		if found, err := u.of(part); err != nil || found != free {
			return known, err
		}
	}
	return s.claim(name)
}

// claim opens a block device as a mount does, for itself alone. Whoever wants to
// mount it in that moment is told that it is busy.
func (s *Survey) claim(name string) (use, error) {
	path := s.system.dev(strings.ReplaceAll(name, "!", "/"))
	if number, err := blockNumber(path); err != nil || number != s.number(name) {
		return unknown, fmt.Errorf("cannot tell whether %s is in use: %q is not its device file", name, path)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_EXCL|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch err {
	case nil:
		return free, unix.Close(fd)
	case unix.EBUSY:
		return claimed, nil
	case unix.ENXIO, unix.ENODEV, unix.ENOMEDIUM: // there is nothing in it
		return free, nil
	}
	return unknown, fmt.Errorf("cannot tell whether %s is in use: %q: %w", name, path, err)
}
