package quiesce

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/moby/sys/mountinfo"
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

// mountOf is the mount on which a path lies, or would be made if it is not there.
func (s *Survey) mountOf(path string) (*mountinfo.Info, error) {
	if !filepath.IsAbs(path) {
		dir, err := os.Getwd()
		if err != nil {
			return nil, err
		}
		path = dir + "/" + path
	}
	p, err := s.locate(path)
	return p.mount, err
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
	p, err := w.survey.locate(path)
	switch {
	case err != nil:
		return err
	case !p.there:
		return &fs.PathError{Op: "find", Path: path, Err: fs.ErrNotExist}
	}
	return w.mount(p.mount)
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
	p, err := w.survey.locate(dir)
	if err != nil || !p.there || !filepath.IsAbs(dir) {
		return nil //nolint:nilerr // the end of the walk
	}
	return w.mount(p.mount)
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
		if err := w.path(backing); err != nil {
			return fmt.Errorf("cannot find the image under %s: %w", name, err)
		}
		return nil
	}
	for _, lower := range w.survey.lowerDevices(name) {
		if err := w.device(lower); err != nil {
			return err
		}
	}
	return nil
}
