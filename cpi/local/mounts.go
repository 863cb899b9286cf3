package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mountOf returns where a directory, or something within it, is mounted by itself: as a
// subvolume or by a bind mount, in any mount namespace; "" for nowhere. The mount
// through which its path leads is none of that kind.
func mountOf(dir *os.File, path string) (string, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	through, err := mountThrough(dir)
	if err != nil {
		return "", err
	}
	below := strings.TrimPrefix(path, strings.TrimSuffix(through.Mountpoint, "/"))
	within := filepath.Join(through.Root, below) // the path in the filesystem itself
	namespaces, err := mountTables()
	if err != nil {
		return "", err
	}
	for _, n := range namespaces {
		for _, m := range n.mounts {
			sameDevice := m.Major == through.Major && m.Minor == through.Minor
			if sameDevice && (m.Root == within || strings.HasPrefix(m.Root, within+"/")) {
				return m.Mountpoint + n.whose, nil
			}
		}
	}
	return "", nil
}

// mountThrough returns the mount through which an open directory was reached.
func mountThrough(dir *os.File) (*mountinfo.Info, error) {
	var stat unix.Statx_t
	if err := unix.Statx(int(dir.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &stat); err != nil {
		return nil, err
	}
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		is := uint64(m.ID) == stat.Mnt_id
		return !is, is
	})
	if err == nil && len(mounts) == 0 {
		err = errors.New("it is in no mount table")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot find the mount of %q: %w", dir.Name(), err)
	}
	return mounts[0], nil
}

// namespace is what is mounted in a mount namespace.
type namespace struct {
	mounts []*mountinfo.Info
	whose  string // says so in words, where it is not ours
}

// mountTables returns the mounts of each mount namespace in which a process lives, our
// own first.
func mountTables() ([]namespace, error) {
	own, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, err
	}
	all := []namespace{{mounts: own}}
	here, _ := os.Readlink("/proc/self/ns/mnt")
	seen := map[string]bool{here: true}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		name, err := os.Readlink(process + "/ns/mnt")
		if err != nil || seen[name] {
			continue
		}
		mounts, err := mountsOf(process)
		if err != nil {
			continue // it has ended
		}
		seen[name] = true
		all = append(all, namespace{mounts, " in the mount namespace of process " + filepath.Base(process)})
	}
	return all, nil
}

func mountsOf(process string) ([]*mountinfo.Info, error) {
	file, err := os.Open(process + "/mountinfo")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return mountinfo.GetMountsFromReader(file, nil)
}
