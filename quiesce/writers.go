package quiesce

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Writer is a process that can write to a filesystem without opening anything: it
// has a file open for writing, or mapped so that what it stores goes there.
type Writer struct {
	PID     int
	Command string // its name, cut by the kernel to 15 bytes
	Path    string // of one such file, as its mount namespace has it
	Files   int    // how many paths there are
}

// Writers lists who can write to filesystems, in all mount namespaces, sorted by
// PID, without this process and what it has started. It waits for no filesystem,
// frozen or dead. The error joins *UnseenErrors, beside which all others are
// listed.
func (s System) Writers(filesystems []Filesystem) ([]Writer, error) {
	w := writers{system: s, mounts: s.mountIDs(), on: map[Superblock]bool{}}
	for _, f := range filesystems {
		w.on[f.Superblock] = true
	}
	var all []Writer
	var errs []error
	ours := s.family(os.Getpid())
	for _, pid := range s.processes() {
		n, _ := strconv.Atoi(pid)
		if ours[n] {
			continue
		}
		found, err := w.ask(pid)
		if err != nil {
			errs = append(errs, &UnseenError{PID: n, Command: s.command(pid), Err: err})
		}
		if len(found) > 0 {
			all = append(all, Writer{PID: n, Command: s.command(pid), Path: found[0], Files: len(found)})
		}
	}
	return all, errors.Join(errs...)
}

// UnseenError says that a process could not be looked at, or not in full.
type UnseenError struct {
	PID     int
	Command string
	Err     error // fs.ErrPermission where the kernel shows it to nobody but its own kind; ErrHeldUp
}

func (e *UnseenError) Error() string {
	return fmt.Sprintf("cannot tell what process %d (%s) writes to: %v", e.PID, e.Command, e.Err)
}

func (e *UnseenError) Unwrap() error { return e.Err }

// ErrHeldUp is why a process cannot be looked at that the kernel holds up, as it
// does one that stores to a frozen filesystem.
var ErrHeldUp = errors.New("the kernel holds it up")

// family is a process and all that descend from it.
func (s System) family(pid int) map[int]bool {
	parents := map[int]int{}
	for _, one := range s.processes() {
		text, _ := os.ReadFile(s.proc(one, "stat"))
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:]) // before it is a name that may hold anything
		if n, err := strconv.Atoi(one); err == nil && len(fields) > 1 {
			parents[n], _ = strconv.Atoi(string(fields[1]))
		}
	}
	all := map[int]bool{pid: true}
	for grown := true; grown; {
		grown = false
		for child, parent := range parents {
			if all[parent] && !all[child] {
				all[child], grown = true, true
			}
		}
	}
	return all
}

func (s System) command(pid string) string {
	text, _ := os.ReadFile(s.proc(pid, "comm"))
	return strings.TrimSuffix(string(text), "\n")
}

// mountIDs are the superblocks of all mounts by their ids, which are unique on the
// machine, across mount namespaces.
func (s System) mountIDs() map[uint64]Superblock {
	all, seen := map[uint64]Superblock{}, map[string]bool{}
	for _, pid := range s.processes() {
		key := s.namespace(pid)
		if key == "" || seen[key] {
			continue
		}
		table, err := os.ReadFile(s.proc(pid, "mountinfo"))
		if err != nil {
			continue
		}
		mounts, _ := parseMounts(table)
		for _, m := range mounts {
			seen[key] = true
			all[uint64(m.ID)] = superblockOf(m)
		}
	}
	return all
}

// writers looks for files of some superblocks.
type writers struct {
	system System
	mounts map[uint64]Superblock
	on     map[Superblock]bool
}

// patience is how long a process may hold up whoever looks at it.
const patience = 2 * time.Second

// ask looks at a process without waiting for it for ever: whoever reads its mappings
// stands in line with a thread of it that changes them, and this behind another
// that waits for a frozen filesystem.
func (w *writers) ask(pid string) (paths []string, err error) {
	type answer struct {
		paths []string
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		opened, err := w.opened(pid)
		mapped, mapErr := w.mapped(pid)
		answered <- answer{append(opened, mapped...), cmp.Or(err, mapErr)}
	}()
	select {
	case a := <-answered:
		slices.Sort(a.paths)
		return slices.Compact(a.paths), unlessGone(a.err)
	case <-time.After(patience):
		return nil, ErrHeldUp
	}
}

func unlessGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// opened are the files that a process has open for writing.
func (w *writers) opened(pid string) ([]string, error) {
	entries, err := os.ReadDir(w.system.proc(pid, "fd"))
	var found []string
	for _, e := range entries {
		link := w.system.proc(pid, "fd", e.Name())
		path, linkErr := os.Readlink(link)
		if errors.Is(linkErr, fs.ErrPermission) {
			return found, linkErr
		}
		if linkErr != nil || !filepath.IsAbs(path) {
			continue // it is closed, or a pipe, a socket …
		}
		flags, mount, ok := w.system.descriptor(pid, e.Name())
		if ok && flags&unix.O_ACCMODE != unix.O_RDONLY && w.regular(link, mount) {
			found = append(found, path)
		}
	}
	return found, err
}

// descriptor is what the kernel tells of a descriptor without asking a filesystem.
func (s System) descriptor(pid, fd string) (flags, mount uint64, ok bool) {
	text, err := os.ReadFile(s.proc(pid, "fdinfo", fd))
	if err != nil {
		return 0, 0, false
	}
	flagsErr, mountErr := fs.ErrNotExist, fs.ErrNotExist
	for line := range strings.Lines(string(text)) {
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t"); name {
		case "flags":
			flags, flagsErr = strconv.ParseUint(value, 8, 64)
		case "mnt_id":
			mount, mountErr = strconv.ParseUint(value, 10, 64)
		}
	}
	return flags, mount, flagsErr == nil && mountErr == nil
}

// regular says whether a descriptor's link leads to a regular file of the
// superblocks, by its mount. One that no mount table shows was unmounted lazily, and is
// known by its device.
func (w *writers) regular(link string, mount uint64) bool {
	sb, known := w.mounts[mount]
	if known && !w.on[sb] {
		return false
	}
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG &&
		(known || w.on[Superblock{st.Dev_major, st.Dev_minor}])
}

// mapped are the files that a process has mapped shared and writable.
func (w *writers) mapped(pid string) ([]string, error) {
	text, err := os.ReadFile(w.system.proc(pid, "maps"))
	var found []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line) // range, rw-s, offset, device, inode, path
		if len(fields) < 6 || fields[1][1] != 'w' || fields[1][3] != 's' || fields[5][0] != '/' {
			continue
		}
		if w.regularAt(w.system.proc(pid, "map_files", fields[0])) {
			found = append(found, escaped.ReplaceAllStringFunc(line[strings.Index(line, fields[5]):len(line)-1], octal))
		}
	}
	return found, err
}

// regularAt is regular for a mapping, of whose mount only a descriptor tells. To
// get one that nothing can be done with asks no filesystem.
func (w *writers) regularAt(link string) bool {
	fd, err := unix.Open(link, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false // it is not mapped any more
	}
	defer unix.Close(fd)
	_, mount, ok := w.system.descriptor("self", strconv.Itoa(fd))
	return ok && w.regular(link, mount)
}
