package quiesce

import (
	"fmt"
	"slices"
	"strings"
)

// notes say what an operator should know of the disks, beside what is frozen.
func (c *contents) notes() []string {
	return slices.Concat(c.emptyNotes(), c.apartNotes(), c.journalNotes(), c.swapNotes(), c.overlayNotes())
}

// emptyNotes name the disks of which nothing is mounted.
func (c *contents) emptyNotes() []string {
	var all []string
	for _, d := range c.disks {
		if !slices.ContainsFunc(c.found, func(f found) bool { return slices.Contains(f.Disks, d.CID) }) {
			all = append(all, fmt.Sprintf("nothing on disk %s is mounted: nothing to bring to rest", d.CID))
		}
	}
	return all
}

// apartNotes name the filesystems that lie on other disks, too.
func (c *contents) apartNotes() []string {
	var all []string
	for _, f := range c.found {
		var apart []string
		for _, device := range f.Devices {
			for _, whole := range c.survey.wholes(device) {
				if !c.covers(whole) && !slices.Contains(apart, whole) {
					apart = append(apart, whole)
				}
			}
		}
		if len(apart) > 0 {
			all = append(all, fmt.Sprintf("%s lies on %s too, which no disk of this snapshot covers: the snapshot has only a part of it", f.Path, strings.Join(apart, ", ")))
		}
	}
	return all
}

// without says what a snapshot of a filesystem is worth that lacks such a device.
// A freeze writes everything to its place, so that a journal has nothing more to
// tell.
var without = map[journalKind]string{
	ext4Journal: "a copy has all data, and can be mounted once the journal is taken from it (tune2fs -f -O ^has_journal)",
	xfsLog:      "a copy has all data, and can be mounted once it is given a new log (xfs_repair -L -l LOGDEVICE)",
	xfsRealtime: "a copy lacks that data",
}

// journalNotes name the filesystems of which either the journal or all the rest
// lies on the disks.
func (c *contents) journalNotes() []string {
	var all []string
	for _, f := range c.found {
		for _, j := range f.view.journalsOf(f.mount) {
			if !c.covers(j.device) && f.PassedOver() == "" {
				all = append(all, fmt.Sprintf("%s has its %s on %s, which no disk of this snapshot covers: %s", f.Path, j.kind, j.device, without[j.kind]))
			}
		}
	}
	for _, j := range slices.Concat(c.journals, c.elsewhere.journals) {
		if c.covers(j.device) && !c.has(j.of) {
			all = append(all, fmt.Sprintf("%s on the disk is the %s of %s, which is not frozen", j.device, j.kind, j.owner))
		}
	}
	return all
}

// swapNotes name the swap areas on the disks.
func (c *contents) swapNotes() []string {
	var all []string
	for _, area := range c.swaps {
		if device, err := c.survey.blockDevice(area.Path); err == nil && c.covers(device) {
			all = append(all, fmt.Sprintf("swap is active on %s, which lies on the disk: the snapshot has it as it happens to be", area.Path))
			continue
		}
		p, err := c.survey.locate(area.Path)
		if area.File && err == nil && c.has(superblockOf(p.mount)) {
			all = append(all, fmt.Sprintf("swap file %s lies on %s: no freeze holds it, and the snapshot has it as it happens to be", area.Path, p.mount.Mountpoint))
		}
	}
	return all
}

// overlayNotes name the overlays that write to a filesystem on the disks.
func (c *contents) overlayNotes() []string {
	over := map[Superblock][]string{}
	for _, m := range c.survey.mounts {
		if m.FSType != "overlay" {
			continue
		}
		if layers, _ := c.survey.layersOf(m); len(layers) > 1 {
			over[layers[1]] = append(over[layers[1]], m.Mountpoint)
		}
	}
	var all []string
	for _, f := range c.found {
		if above := over[f.Superblock]; len(above) > 0 && f.PassedOver() == "" {
			all = append(all, fmt.Sprintf("%s is what the overlay at %s writes to, which is held with it", f.Path, strings.Join(above, ", ")))
		}
	}
	return all
}

// covers says whether a block device lies on the disks.
func (c *contents) covers(device string) bool { return slices.Contains(c.devices, device) }
