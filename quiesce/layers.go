package quiesce

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Dependency is a path that the daemon needs while filesystems are frozen.
type Dependency struct {
	Name string // what it is, for the error: "state_dir"
	Path string
}

// DependencyError says that the daemon would wait on what it is to freeze.
type DependencyError struct {
	Dependency
	Mount string // the mount point that would be frozen
}

func (e *DependencyError) Error() string {
	return fmt.Sprintf("cannot freeze %q: %s %q lies on it, and the daemon would wait for itself", e.Mount, e.Name, e.Path)
}

// Independent checks that none of the paths lies on one of the filesystems,
// through any layer: a loop image's backing file, a mapped device, an overlay's
// upper directory. The error is a *DependencyError.
func (s *Survey) Independent(frozen []Filesystem, paths []Dependency) error {
	for _, p := range paths {
		layers, err := s.Layers(p.Path)
		if err != nil {
			return fmt.Errorf("cannot tell what %s %q lies on: %w", p.Name, p.Path, err)
		}
		for _, f := range frozen {
			if slices.Contains(layers, f.Superblock) {
				return &DependencyError{Dependency: p, Mount: f.Path}
			}
		}
	}
	return nil
}

// Layers lists the superblocks that a path depends on, its own first, then
// those under its devices. A path that does not exist yet depends on what its
// nearest existing parent depends on.
func (s *Survey) Layers(path string) ([]Superblock, error) {
	m, err := s.mountOf(path)
	if err != nil {
		return nil, err
	}
	return s.layersOf(m)
}

// mountOf is the mount on which a path lies.
func (s *Survey) mountOf(path string) (*mountinfo.Info, error) {
	id, err := mountID(path)
	if err != nil {
		return nil, err
	}
	m := s.byID(id)
	if m == nil {
		return nil, fmt.Errorf("mount %d of %q is not in the mount table", id, path)
	}
	return m, nil
}

// mountID asks the kernel which mount a path is on, following links. Where
// nothing is at the path yet, it is what would be made there that counts: below
// the nearest parent, or where a link leads.
func mountID(path string) (uint64, error) {
	for {
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st)
		if err == nil {
			return st.Mnt_id, nil
		}
		next := filepath.Dir(path)
		if !errors.Is(err, unix.ENOENT) || next == path {
			return 0, &os.PathError{Op: "statx", Path: path, Err: err}
		}
		if target, err := os.Readlink(path); err == nil {
			if !filepath.IsAbs(target) {
				target = filepath.Join(next, target)
			}
			next = target
		}
		path = next
	}
}

// layersOf lists a mount's superblock and what it is stacked upon. With an error
// it is as much of that as could be told.
func (s *Survey) layersOf(m *mountinfo.Info) ([]Superblock, error) {
	w := &walk{survey: s, seen: map[string]bool{}}
	err := w.mount(m)
	return w.found, err
}

// walk follows a stack downwards and collects the superblocks it meets.
type walk struct {
	survey *Survey
	seen   map[string]bool // block devices
	found  []Superblock
}

func (w *walk) path(path string) error {
	m, err := w.survey.mountOf(path)
	if err != nil {
		return err
	}
	return w.mount(m)
}

func (w *walk) mount(m *mountinfo.Info) error {
	sb := superblockOf(m)
	if slices.Contains(w.found, sb) {
		return nil
	}
	w.found = append(w.found, sb)
	if m.FSType == "overlay" {
		return w.upper(m)
	}
	for _, device := range w.survey.devices(m) {
		if err := w.device(device); err != nil {
			return err
		}
	}
	return nil
}

// quoted is how whoever mounts an overlay writes a comma or a colon in a path.
// The kernel shows the option as it was given.
var quoted = regexp.MustCompile(`\\(.)`)

// upper follows an overlay to where it writes. In a container that is a path of
// the host's, which is not to be seen from here and ends the walk.
func (w *walk) upper(m *mountinfo.Info) error {
	dir, _ := option(m.VFSOptions, "upperdir")
	dir = quoted.ReplaceAllString(dir, "$1")
	if _, err := os.Stat(dir); err != nil || !filepath.IsAbs(dir) {
		return nil //nolint:nilerr // the end of the walk
	}
	return w.path(dir)
}

// device follows one block device, by its name in /sys/class/block.
func (w *walk) device(name string) error {
	if w.seen[name] {
		return nil
	}
	w.seen[name] = true
	backing, err := w.survey.backingFile(name)
	if err != nil {
		return err
	}
	if backing != "" {
		if _, err := os.Stat(backing); err != nil {
			return fmt.Errorf("cannot find the image under %s: %w", name, err)
		}
		return w.path(backing)
	}
	for _, lower := range w.survey.lowerDevices(name) {
		if err := w.device(lower); err != nil {
			return err
		}
	}
	return nil
}

// devices names the block devices of a mount's superblock: one for most
// filesystems, every member for btrfs, none for those without a device.
func (s *Survey) devices(m *mountinfo.Info) []string {
	if m.Major != 0 {
		if target, err := os.Readlink(s.system.sys("dev", "block", superblockOf(m).String())); err == nil {
			return []string{filepath.Base(target)}
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
	if resolved, err := filepath.EvalSymlinks(source); err == nil {
		source = resolved
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

func names(dir string) []string {
	entries, _ := os.ReadDir(dir)
	found := make([]string, 0, len(entries))
	for _, e := range entries {
		found = append(found, e.Name())
	}
	return found
}
