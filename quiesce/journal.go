package quiesce

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// journal is a device that a filesystem needs beside those that hold it.
type journal struct {
	device string
	kind   journalKind
	owner  string     // where the filesystem is mounted, as far as that is known
	of     Superblock // the filesystem's, zero if it is not known
}

type journalKind string

const (
	ext4Journal journalKind = "journal"
	xfsLog      journalKind = "log"
	xfsRealtime journalKind = "realtime data"
)

// journals lists those of every filesystem in the table, and those that belong
// to an ext4 which is not in it.
func (s *Survey) journals() []journal {
	var all []journal
	seen := map[Superblock]bool{}
	for _, m := range s.mounts {
		if sb := superblockOf(m); !seen[sb] {
			seen[sb] = true
			all = append(all, s.journalsOf(m)...)
		}
	}
	for _, device := range s.system.externalJournals() {
		if !slices.ContainsFunc(all, func(j journal) bool { return j.device == device }) {
			all = append(all, journal{device: device, kind: ext4Journal, owner: "a filesystem in another mount namespace"})
		}
	}
	return all
}

func (s *Survey) journalsOf(m *mountinfo.Info) []journal {
	var all []journal
	switch m.FSType {
	case "xfs":
		for key, kind := range map[string]journalKind{"logdev": xfsLog, "rtdev": xfsRealtime} {
			path, _ := option(m.VFSOptions, key)
			if device, err := s.blockDevice(path); path != "" && err == nil {
				all = append(all, journal{device, kind, s.root + m.Mountpoint, superblockOf(m)})
			}
		}
	case "ext3", "ext4":
		for _, device := range s.devices(m) {
			if external := s.system.journalOf(device); external != "" {
				all = append(all, journal{external, ext4Journal, s.root + m.Mountpoint, superblockOf(m)})
			}
		}
	}
	return all
}

// externalJournals names the block devices that are journals of an ext4. The
// kernel lists the journal of a filesystem under its device and inode, such as
// vdb1-8, and one that is a device of its own under that.
func (s System) externalJournals() []string {
	return slices.DeleteFunc(names(s.proc("fs", "jbd2")), func(name string) bool {
		_, err := os.Stat(s.sys("class", "block", name))
		return err != nil
	})
}

// journalOf names the block device that is the journal of the ext4 on another,
// "" if the journal is inside. The thread that writes it is named for it, cut
// short by some kernels.
func (s System) journalOf(device string) string {
	pid, err := os.ReadFile(s.sys("fs", "ext4", device, "journal_task"))
	if err != nil {
		return ""
	}
	comm, err := os.ReadFile(s.proc(strings.TrimSpace(string(pid)), "comm"))
	if err != nil {
		return ""
	}
	task, ok := strings.CutPrefix(strings.TrimSpace(string(comm)), "jbd2/")
	inside, _ := filepath.Glob(s.proc("fs", "jbd2", device+"-*"))
	if !ok || slices.ContainsFunc(inside, func(path string) bool { return strings.HasPrefix(filepath.Base(path), task) }) {
		return ""
	}
	for _, name := range s.externalJournals() {
		if strings.HasPrefix(name, task) {
			return name
		}
	}
	return ""
}
