package writeout

import (
	"os"
	"strconv"
	"strings"
)

// superblock is "major:minor", as in mountinfo: one for all subvolumes of a
// btrfs, whose files differ in st_dev.
type superblock string

// mounts says which superblock a mount id leads to. Ids are unique on the
// machine, across mount namespaces.
type mounts map[uint64]superblock

// of adds the mounts that a process sees.
func (m mounts) of(mountinfo string) {
	text, err := os.ReadFile(mountinfo)
	if err == nil {
		m.parse(string(text))
	}
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
