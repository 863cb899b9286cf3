package quiesce

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// remote are types whose every answer comes from a server or a process, which
// may be dead: asking for the attributes of a mount point of theirs can wait for
// ever. Whether a path leads to one is decided by the mount table alone.
var remote = map[string]bool{
	"fuse": true, "fuseblk": true, "autofs": true, "nfs": true, "nfs4": true, "cifs": true, "smb3": true,
	"ceph": true, "afs": true, "lustre": true, "9p": true, "virtiofs": true,
}

// place is where a path leads.
type place struct {
	mount *mountinfo.Info // on which it lies, or would be made
	path  string          // without links, as far as it is there
	there bool            // all of it is
}

// maxLinks bounds the symbolic links in a path, as the kernel does.
const maxLinks = 40

// locate follows a path link by link, and looks at nothing in a mount that may
// never answer: there the path ends, and what would be a link within cannot be
// told. Where nothing is at the path yet, it is what would be made there that
// counts: below the nearest parent, or where a link leads.
func (s *Survey) locate(path string) (place, error) {
	at, left, links := "/", elements(path), 0
	for len(left) > 0 {
		name := left[0]
		left = left[1:]
		if name == ".." {
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		if m := s.mountAt(next); s.mayHang(m) {
			return place{mount: m, path: m.Mountpoint, there: len(left) == 0}, nil
		}
		target, err := s.readLink(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return s.placed(at, false)
		case err != nil:
			return place{}, err
		case target == "":
			at = next
			continue
		}
		if links++; links > maxLinks {
			return place{}, &fs.PathError{Op: "find", Path: path, Err: unix.ELOOP}
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		left = append(elements(target), left...)
	}
	return s.placed(at, true)
}

func (s *Survey) placed(at string, there bool) (place, error) {
	m := s.mountAt(at)
	if m == nil {
		return place{}, errors.New("the root directory is not in the mount table")
	}
	return place{mount: m, path: at, there: there}, nil
}

// elements are the names of a path, without those that lead nowhere.
func elements(path string) []string {
	var all []string
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			all = append(all, name)
		}
	}
	return all
}

// readLink is what a symbolic link says, "" for what is none.
func (s *Survey) readLink(path string) (string, error) {
	info, err := os.Lstat(s.root + path)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return "", err
	}
	return os.Readlink(s.root + path)
}

// mayHang says whether a lookup in a mount may never be answered. The root of
// the namespace is asked all the same: nothing works without it.
func (s *Survey) mayHang(m *mountinfo.Info) bool {
	return m != nil && m != s.mountAt("/") && remote[family(m.FSType)]
}

// mountAt is the mount that is seen at a path without links, nil if the table
// has no root. Each mount names its parent, which tells one that is seen from one
// that lies beneath another or was hidden with its parent directory.
func (s *Survey) mountAt(path string) *mountinfo.Info {
	m := s.upon(s.bottom(), "/")
	for i := 1; i <= len(path) && m != nil && path != "/"; i++ {
		if i == len(path) || path[i] == '/' {
			m = s.upon(m, path[:i])
		}
	}
	return m
}

// bottom is the mount at the root directory whose parent is not to be seen.
func (s *Survey) bottom() *mountinfo.Info {
	for _, m := range s.mounts {
		if m.Mountpoint == "/" && (m.Parent == m.ID || s.byID(uint64(m.Parent)) == nil) {
			return m
		}
	}
	return nil
}

// upon is the topmost of the mounts upon m at a mount point, m if there is none.
func (s *Survey) upon(m *mountinfo.Info, at string) *mountinfo.Info {
	for range s.mounts { // as many as can be upon one another
		upper := s.child(m, at)
		if upper == nil {
			break
		}
		m = upper
	}
	return m
}

func (s *Survey) child(m *mountinfo.Info, at string) *mountinfo.Info {
	for _, one := range s.mounts {
		if m != nil && one.Parent == m.ID && one != m && one.Mountpoint == at {
			return one
		}
	}
	return nil
}

// reachable says whether a mount's own mount point leads to it. A file that
// something is mounted upon does not: the guard opens directories.
func (s *Survey) reachable(m *mountinfo.Info) bool {
	p, err := s.locate(m.Mountpoint)
	if err != nil || !p.there || p.mount != m || p.path != m.Mountpoint || s.mayHang(m) {
		return false
	}
	info, err := os.Lstat(s.root + p.path)
	return err == nil && info.IsDir()
}
