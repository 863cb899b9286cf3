package quiesce

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// System says where the kernel's tables are read. The zero value is the
// running system; tests point it at copies.
type System struct {
	Proc string // "/proc" when empty
	Sys  string // "/sys" when empty
	Dev  string // "/dev" when empty
}

func (s System) proc(elem ...string) string { return under(s.Proc, "/proc", elem) }
func (s System) sys(elem ...string) string  { return under(s.Sys, "/sys", elem) }
func (s System) dev(elem ...string) string  { return under(s.Dev, "/dev", elem) }

func under(root, fallback string, elem []string) string {
	if root == "" {
		root = fallback
	}
	return filepath.Join(append([]string{root}, elem...)...)
}

// Survey is one reading of a mount table, with sysfs beside it.
type Survey struct {
	system System
	root   string                       // goes before every path of the table; "" in the daemon's own namespace
	init   bool                         // its root directory is the machine's, or the daemon's
	mounts []*mountinfo.Info            // in the table's order
	users  map[string][]*mountinfo.Info // by device, one mount of each superblock on it
	images map[Superblock][]string      // loop devices by what their images lie on; nil until asked for
}

// Survey reads the mount table of the daemon's own mount namespace.
func (s System) Survey() (*Survey, error) {
	survey, err := s.surveyOf("self", "")
	if err == nil {
		survey.init = true
	}
	return survey, err
}

// surveyOf reads the mount table of a process, whose paths are seen below root.
func (s System) surveyOf(process, root string) (*Survey, error) {
	table, err := os.ReadFile(s.proc(process, "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("cannot read the mount table: %w", err)
	}
	mounts, err := parseMounts(table)
	if err != nil {
		return nil, err
	}
	found := &Survey{system: s, root: root, mounts: mounts, users: map[string][]*mountinfo.Info{}}
	seen := map[Superblock]bool{}
	for _, m := range mounts {
		if sb := superblockOf(m); !seen[sb] {
			seen[sb] = true
			for _, device := range found.devices(m) {
				found.users[device] = append(found.users[device], m)
			}
		}
	}
	return found, nil
}

// parseMounts reads the text of /proc/PID/mountinfo. A table without a single
// mount is an error: no process sees one, so it was not read in full.
func parseMounts(table []byte) ([]*mountinfo.Info, error) {
	mounts, err := mountinfo.GetMountsFromReader(bytes.NewReader(table), nil)
	if err != nil {
		return nil, fmt.Errorf("cannot parse the mount table: %w", err)
	}
	if len(mounts) == 0 {
		return nil, errors.New("cannot parse the mount table: it is empty")
	}
	return mounts, nil
}

// byID is the mount with an id as statx(2) gives it in stx_mnt_id.
func (s *Survey) byID(id uint64) *mountinfo.Info {
	for _, m := range s.mounts {
		if uint64(m.ID) == id {
			return m
		}
	}
	return nil
}

// bySuperblock is every mount of one superblock, in the table's order.
func (s *Survey) bySuperblock(sb Superblock) []*mountinfo.Info {
	var found []*mountinfo.Info
	for _, m := range s.mounts {
		if superblockOf(m) == sb {
			found = append(found, m)
		}
	}
	return found
}

// Superblock identifies a mounted filesystem: the device numbers that
// mountinfo shows, which all mounts and subvolumes of one superblock share.
type Superblock struct{ Major, Minor uint32 }

func (sb Superblock) String() string { return fmt.Sprintf("%d:%d", sb.Major, sb.Minor) }

func superblockOf(m *mountinfo.Info) Superblock {
	return Superblock{uint32(m.Major), uint32(m.Minor)}
}

// option is the value of key among comma-separated mount options, and whether
// the option is there at all. In a value the kernel writes a comma, white space
// and the backslash itself as a backslash and three octal digits.
func option(options, key string) (string, bool) {
	for _, o := range strings.Split(options, ",") {
		name, value, _ := strings.Cut(o, "=")
		if name == key {
			return escaped.ReplaceAllStringFunc(value, octal), true
		}
	}
	return "", false
}

var escaped = regexp.MustCompile(`\\[0-3][0-7]{2}`)

func octal(digits string) string {
	n, _ := strconv.ParseUint(digits[1:], 8, 8) // three digits, as matched
	return string([]byte{byte(n)})
}
