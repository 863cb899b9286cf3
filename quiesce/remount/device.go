package remount

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/quiesced/quiesced/quiesce"
)

// PartOf says of what a block device is only a part, or what is made of it, in words; ""
// for a whole disk that has nothing but a filesystem.
func PartOf(name string) string {
	dir := filepath.Join("/sys/class/block", name)
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		return name + " is a partition"
	}
	if below, _ := filepath.Glob(filepath.Join(dir, "slaves/*")); len(below) > 0 {
		for i := range below {
			below[i] = filepath.Base(below[i])
		}
		return fmt.Sprintf("%s is made of %s (LVM, RAID or the like)", name, strings.Join(below, ", "))
	}
	return ""
}

// Size is the size of the block device that a superblock lies on, in bytes.
func Size(sb quiesce.Superblock) (int64, error) {
	text, err := os.ReadFile(filepath.Join("/sys/dev/block", sb.String(), "size"))
	if err != nil {
		return 0, fmt.Errorf("cannot tell the size of device %s: %w", sb, err)
	}
	sectors, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return sectors * 512, err
}

// device is the device file of a superblock on a block device, "" for one of its own
// kind, as btrfs has.
func device(sb quiesce.Superblock) string {
	target, err := os.Readlink(filepath.Join("/sys/dev/block", sb.String()))
	if err != nil {
		return ""
	}
	return filepath.Join("/dev", strings.ReplaceAll(filepath.Base(target), "!", "/"))
}
