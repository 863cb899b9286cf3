package quiesce

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// elsewhere looks for what the daemon's own mount table does not show: mounts in
// other mount namespaces.
type elsewhere struct {
	survey   *Survey
	known    map[string]bool // devices whose users another table of the kernel tells
	tables   []*Survey       // of other processes; nil until they are needed
	journals []journal       // found in them
}

// complete adds to an extent what is mounted in other mount namespaces alone. A
// device that is in use, nobody knows by whom, is an error: what lies on it would
// be in the snapshot as it happens to be.
func (o *elsewhere) complete(e *extent) error {
	u := &uses{survey: o.survey, known: o.known, found: map[string]use{}}
	for i := 0; i < len(e.devices); i++ { // it grows with what is found
		name := e.devices[i]
		used, err := u.of(name)
		if err != nil {
			return err
		}
		if used != claimed {
			continue
		}
		if !o.user(e, name) {
			return fmt.Errorf("device %s is in use, and no mount table, array or swap shows by whom", name)
		}
	}
	return nil
}

// user finds who uses a device in another mount namespace: a filesystem, or one
// of which it is the journal.
func (o *elsewhere) user(e *extent, name string) bool {
	for _, view := range o.all() {
		for _, m := range view.users[name] {
			e.add(found{view: view, mount: m})
			return true
		}
		for _, j := range view.journals() {
			if j.device == name {
				o.journals = append(o.journals, j)
				return true
			}
		}
	}
	return false
}

// reach chooses the mount through which a filesystem is opened. One that nothing
// is done about needs none, and is not asked for its attributes.
func (o *elsewhere) reach(f found) (found, error) {
	if f.view.filesystem(f.mount).PassedOver() != "" {
		return f, nil
	}
	sb := superblockOf(f.mount)
	if reached, ok := f.view.reach(sb); ok {
		return reached, nil
	}
	for _, view := range o.all() {
		if reached, ok := view.reach(sb); ok {
			return reached, nil
		}
	}
	return found{}, fmt.Errorf("no mount point of %s on %s, such as %q, leads to it", f.mount.FSType, f.mount.Source, f.mount.Mountpoint)
}

// reach finds a mount of a superblock whose mount point leads to it.
func (s *Survey) reach(sb Superblock) (found, bool) {
	for _, m := range s.bySuperblock(sb) {
		if s.reachable(m) {
			return found{view: s, mount: m}, true
		}
	}
	return found{}, false
}

// all reads the mount tables of other processes, one for each mount namespace and
// each root directory in it. A process that ends meanwhile is passed over.
func (o *elsewhere) all() []*Survey {
	if o.tables != nil {
		return o.tables
	}
	o.tables = []*Survey{}
	system := o.survey.system
	seen := map[string]bool{system.namespace("self"): true}
	for _, pid := range system.processes() {
		key := system.namespace(pid)
		if key == "" || seen[key] {
			continue
		}
		view, err := system.surveyOf(pid, system.proc(pid, "root"))
		if err != nil {
			continue
		}
		view.init = pid == "1"
		seen[key] = true
		o.tables = append(o.tables, view)
	}
	return o.tables
}

// namespace names the mount namespace and the root directory of a process, "" if
// it is gone.
func (s System) namespace(pid string) string {
	ns, err := os.Readlink(s.proc(pid, "ns", "mnt"))
	if err != nil {
		return ""
	}
	root, err := os.Readlink(s.proc(pid, "root"))
	if err != nil {
		return ""
	}
	return ns + " " + root
}

// processes are the ids of all processes, in rising order: the first of a
// namespace is most likely the one that lives as long as it.
func (s System) processes() []string {
	paths, _ := filepath.Glob(s.proc("[0-9]*"))
	for i, path := range paths {
		paths[i] = filepath.Base(path)
	}
	slices.SortFunc(paths, func(a, b string) int {
		n, _ := strconv.Atoi(a)
		m, _ := strconv.Atoi(b)
		return cmp.Compare(n, m)
	})
	return paths
}
