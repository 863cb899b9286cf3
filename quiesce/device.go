package quiesce

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// devices names the block devices of a mount's superblock: one for most
// filesystems, every member for btrfs, none for those without a device.
func (s *Survey) devices(m *mountinfo.Info) []string {
	if m.Major != 0 {
		if name, err := s.named(superblockOf(m)); err == nil {
			return []string{name}
		}
		return nil
	}
	if m.FSType != "btrfs" {
		return nil
	}
	return s.btrfsMembers(m.Source)
}

// btrfsMembers finds the devices beside source in /sys/fs/btrfs: btrfs has a
// device number of its own, so mountinfo names one member only by its path.
func (s *Survey) btrfsMembers(source string) []string {
	if p, err := s.locate(source); err == nil && p.there {
		source = p.path
	}
	name := filepath.Base(source)
	members, _ := filepath.Glob(s.system.sys("fs", "btrfs", "*", "devices", "*"))
	for _, member := range members {
		if filepath.Base(member) == name {
			return names(filepath.Dir(member))
		}
	}
	return []string{name}
}

// backingFile is the path of the image under a loop device, "" for others.
func (s *Survey) backingFile(name string) (string, error) {
	text, err := os.ReadFile(s.system.sys("class", "block", name, "loop", "backing_file"))
	if err != nil {
		return "", nil //nolint:nilerr // not a loop device
	}
	path := strings.TrimSuffix(string(text), "\n")
	if deleted := strings.TrimSuffix(path, " (deleted)"); deleted != path {
		return "", fmt.Errorf("the image %q under %s was deleted, so what it lies on cannot be told", deleted, name)
	}
	return path, nil
}

// lowerDevices names what a block device is made of: the disk of a partition,
// the members of a mapped device or an array.
func (s *Survey) lowerDevices(name string) []string {
	dir := s.system.sys("class", "block", name)
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		if target, err := filepath.EvalSymlinks(dir); err == nil {
			return []string{filepath.Base(filepath.Dir(target))}
		}
	}
	return names(filepath.Join(dir, "slaves"))
}

// wholes names the devices at the bottom of one: disks, and loop devices, whose
// images are what is snapshotted there.
func (s *Survey) wholes(name string) []string {
	var found []string
	seen := map[string]bool{}
	var down func(string)
	down = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		lower := s.lowerDevices(name)
		if len(lower) == 0 {
			found = append(found, name)
		}
		for _, one := range lower {
			down(one)
		}
	}
	down(name)
	return found
}

// size is that of the whole devices at the bottom of some, in bytes, 0 where one's is not
// known.
func (s *Survey) size(devices []string) int64 {
	var wholes []string
	for _, device := range devices {
		wholes = append(wholes, s.wholes(device)...)
	}
	slices.Sort(wholes)
	var sum int64
	for _, name := range slices.Compact(wholes) {
		text, _ := os.ReadFile(s.system.sys("class", "block", name, "size"))
		sectors, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			return 0
		}
		sum += sectors * sector
	}
	return sum
}

// sector is the unit of sizes in sysfs, whatever the device's own is.
const sector = 512

// partitions names those of a disk.
func (s *Survey) partitions(name string) []string {
	found, _ := filepath.Glob(s.system.sys("class", "block", name, "*", "partition"))
	for i, path := range found {
		found[i] = filepath.Base(filepath.Dir(path))
	}
	return found
}

// holders names the mapped devices and arrays that a block device is part of.
func (s *Survey) holders(name string) []string {
	return names(s.system.sys("class", "block", name, "holders"))
}

// loopsOn names the loop devices whose images lie on a superblock, or are the
// block device with that number.
func (s *Survey) loopsOn(sb Superblock) []string {
	if s.images == nil {
		s.images = map[Superblock][]string{}
		loops, _ := filepath.Glob(s.system.sys("class", "block", "loop*", "loop", "backing_file"))
		for _, file := range loops {
			if under, ok := s.imageOn(file); ok {
				s.images[under] = append(s.images[under], filepath.Base(filepath.Dir(filepath.Dir(file))))
			}
		}
	}
	return s.images[sb]
}

// imageOn tells what the image that sysfs names in a file lies on. One that was
// deleted counts for where its directory is; one that is not to be seen from here
// lies on nothing.
func (s *Survey) imageOn(file string) (Superblock, bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Superblock{}, false
	}
	path, deleted := strings.CutSuffix(strings.TrimSuffix(string(text), "\n"), " (deleted)")
	p, err := s.locate(path)
	if err != nil || !p.there && !deleted {
		return Superblock{}, false
	}
	if number, err := s.blockNumber(p); err == nil {
		return number, true
	}
	return superblockOf(p.mount), true
}

// blockDevice names the block device at a path.
func (s *Survey) blockDevice(path string) (string, error) {
	p, err := s.locate(path)
	switch {
	case err != nil:
		return "", err
	case !p.there:
		return "", errors.New("it does not exist")
	}
	number, err := s.blockNumber(p)
	if err != nil {
		return "", err
	}
	return s.named(number)
}

// blockNumber is the number of the block device at a place.
func (s *Survey) blockNumber(p place) (Superblock, error) {
	if s.mayHang(p.mount) {
		return Superblock{}, fmt.Errorf("it lies in a mount of type %s, which is never opened", p.mount.FSType)
	}
	return blockNumber(s.root + p.path)
}

func blockNumber(path string) (Superblock, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return Superblock{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return Superblock{}, errors.New("it is no block device")
	}
	return Superblock{unix.Major(st.Rdev), unix.Minor(st.Rdev)}, nil
}

// named is the block device with a number.
func (s *Survey) named(number Superblock) (string, error) {
	target, err := os.Readlink(s.system.sys("dev", "block", number.String()))
	if err != nil {
		return "", fmt.Errorf("no block device has the number %s", number)
	}
	return filepath.Base(target), nil
}

// number is that of a block device, zero if it is gone.
func (s *Survey) number(name string) Superblock {
	var sb Superblock
	text, _ := os.ReadFile(s.system.sys("class", "block", name, "dev"))
	_, _ = fmt.Sscanf(string(text), "%d:%d", &sb.Major, &sb.Minor)
	return sb
}

func names(dir string) []string {
	entries, _ := os.ReadDir(dir)
	found := make([]string, 0, len(entries))
	for _, e := range entries {
		found = append(found, e.Name())
	}
	return found
}
