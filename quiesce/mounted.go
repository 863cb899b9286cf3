package quiesce

import (
	"fmt"

	"github.com/moby/sys/mountinfo"
)

// Mounted says whether something is mounted at an absolute path, by the mount
// table alone.
func Mounted(path string) (bool, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(path))
	if err != nil {
		return false, fmt.Errorf("cannot read the mount table: %w", err)
	}
	return len(mounts) > 0, nil
}
