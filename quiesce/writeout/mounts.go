package writeout

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// superblock is "major:minor", as in mountinfo: one for all subvolumes of a
// btrfs, whose files differ in st_dev.
type superblock string

// mounts says which superblock a mount id leads to. Ids are unique on the
// machine, across mount namespaces.
type mounts map[uint64]superblock

// superblock is that of a mount. One that was not met yet is looked up in the
// table of a process that has a file there; it is "" where that shows none, as for
// a memfd's.
func (m mounts) superblock(id uint64, proc string) superblock {
	if sb, known := m[id]; known {
		return sb
	}
	m[id] = ""
	if text, err := os.ReadFile(filepath.Join(proc, "mountinfo")); err == nil {
		m.parse(string(text))
	}
	return m[id]
}

// parse adds what a mountinfo says; lines that are none say nothing.
func (m mounts) parse(mountinfo string) {
	for line := range strings.Lines(mountinfo) {
		fields := strings.SplitN(line, " ", 4)
		if len(fields) < 4 {
			continue
		}
		if id, err := strconv.ParseUint(fields[0], 10, 64); err == nil {
			m[id] = superblock(fields[2])
		}
	}
}
