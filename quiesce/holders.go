package quiesce

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Holder is who keeps a filesystem from being unmounted, by one thing of his that lies
// on it.
type Holder struct {
	PID     int
	Command string // its name, cut by the kernel to 15 bytes
	How     string // "has /store/db open"
}

func (h Holder) String() string { return fmt.Sprintf("%s (pid %d) %s", h.Command, h.PID, h.How) }

// Holders lists who keeps a superblock in use, each process once, sorted by PID: those
// that have a file or a directory of it, and those of other mount namespaces in which it
// is mounted. It waits for no filesystem. A process that cannot be looked at is left out.
func (s System) Holders(sb Superblock) []Holder {
	l := holders{system: s, on: sb, mounts: s.mountIDs(), namespaces: map[string]bool{s.mountNamespace("self"): true}}
	var all []Holder
	for _, pid := range s.processes() {
		how := l.ask(pid)
		if how == "" {
			how = l.apart(pid)
		}
		if how != "" {
			n, _ := strconv.Atoi(pid)
			all = append(all, Holder{PID: n, Command: s.command(pid), How: how})
		}
	}
	return all
}

// mountNamespace names the mount namespace of a process, "" if it is gone.
func (s System) mountNamespace(pid string) string {
	name, _ := os.Readlink(s.proc(pid, "ns", "mnt"))
	return name
}

// holders looks for whoever holds one superblock.
type holders struct {
	system     System
	on         Superblock
	mounts     map[uint64]Superblock
	namespaces map[string]bool // that were looked at
}

// ask looks at a process, which may hold up whoever does.
func (l *holders) ask(pid string) string {
	answered := make(chan string, 1)
	go func() { answered <- l.look(pid) }()
	select {
	case how := <-answered:
		return how
	case <-time.After(patience):
		return ""
	}
}

// look says what a process has of the superblock, "" for nothing.
func (l *holders) look(pid string) string {
	for _, one := range []struct{ pattern, how string }{
		{"cwd", "has its working directory there: %s"},
		{"root", "has its root directory there: %s"},
		{"exe", "runs %s"},
		{"fd/*", "has %s open"},
		{"map_files/*", "has %s mapped"},
	} {
		links, _ := filepath.Glob(l.system.proc(pid, one.pattern))
		for _, link := range links {
			if l.holds(link) {
				path, _ := os.Readlink(link)
				return fmt.Sprintf(one.how, path)
			}
		}
	}
	return ""
}

// holds says whether a link in /proc leads to the superblock. A descriptor with which
// nothing can be done asks no filesystem. What no mount table shows was unmounted lazily,
// and is known by its device.
func (l *holders) holds(link string) bool {
	fd, err := unix.Open(link, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	_, mount, ok := l.system.descriptor("self", strconv.Itoa(fd))
	if !ok {
		return false
	}
	if sb, known := l.mounts[mount]; known {
		return sb == l.on
	}
	var st unix.Statx_t
	err = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	return err == nil && Superblock{st.Dev_major, st.Dev_minor} == l.on
}

// apart says where a process of another mount namespace has the superblock mounted, ""
// for nowhere, and for all processes of a namespace but the first.
func (l *holders) apart(pid string) string {
	name := l.system.mountNamespace(pid)
	if name == "" || l.namespaces[name] {
		return ""
	}
	l.namespaces[name] = true
	view, err := l.system.surveyOf(pid, "")
	if err != nil {
		return ""
	}
	for _, m := range view.bySuperblock(l.on) {
		return fmt.Sprintf("is in another mount namespace, where it is mounted at %s", m.Mountpoint)
	}
	return ""
}
