package quiesce

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// Disk is a persistent disk as an operator configures it.
type Disk struct {
	CID    string
	Mounts []string // mount points of its filesystems
}

// Filesystem is a superblock on the disks to be brought to rest.
type Filesystem struct {
	Superblock
	Type     string   // as the kernel names it: ext4, xfs, btrfs
	Path     string   // the configured mount point through which it is reached
	MountID  uint64   // of the mount at Path
	Mounts   []string // every mount point of it in the daemon's mount namespace
	Devices  []string // names of its block devices: loop0, vdb1
	Disks    []string // CIDs of the disks whose mounts lead to it
	ReadOnly bool     // the superblock itself, not only a mount of it
	Root     bool     // it is the root filesystem
	Rank     int      // 0 is the top of a stack; frozen in rising order
}

// notFreezable are types whose superblock has no freeze, or whose data lies
// where a freeze here would not hold it. They are never opened.
var notFreezable = map[string]bool{
	"tmpfs": true, "ramfs": true, "overlay": true, "fuse": true, "fuseblk": true,
	"nfs": true, "nfs4": true, "cifs": true, "smb3": true, "ceph": true, "9p": true, "virtiofs": true,
}

// Freezable says why a filesystem is never frozen, nil if it can be.
func (f Filesystem) Freezable() error {
	switch {
	case f.Root:
		return fmt.Errorf("cannot freeze %q: it is the root filesystem, on which the daemon and the CPI live", f.Path)
	case notFreezable[family(f.Type)]:
		return fmt.Errorf("cannot freeze %q: a filesystem of type %s cannot be held by freezing it", f.Path, f.Type)
	}
	return nil
}

// family is a type without the subtype that FUSE adds: fuse.sshfs.
func family(fstype string) string {
	name, _, _ := strings.Cut(fstype, ".")
	return name
}

// MountError says that a configured mount point does not lead to a filesystem.
type MountError struct {
	Disk   string // CID
	Mount  string
	Reason string
}

func (e *MountError) Error() string {
	return fmt.Sprintf("cannot use mount %q of disk %q: %s", e.Mount, e.Disk, e.Reason)
}

// Filesystems lists the superblocks that the disks' mounts lead to, each once,
// ranked so that what is stacked upon another comes before it. The error is a
// *MountError when a configured mount is not there.
func (s *Survey) Filesystems(disks []Disk) ([]Filesystem, error) {
	var found []Filesystem
	for _, d := range disks {
		for _, path := range d.Mounts {
			m, err := s.mounted(d.CID, path)
			if err != nil {
				return nil, err
			}
			found = s.add(found, d.CID, m)
		}
	}
	return s.rank(found)
}

// mounted is the mount at a configured path, which may be reached through
// symbolic links (BOSH links /var/vcap/store on some VMs). The kernel says which
// one is to be seen there: in the table's order neither a mount beneath another
// nor one hidden by a mount of a parent directory can be told.
func (s *Survey) mounted(cid, path string) (*mountinfo.Info, error) {
	resolved, err := filepath.EvalSymlinks(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &MountError{Disk: cid, Mount: path, Reason: "it does not exist"}
	case err != nil:
		return nil, &MountError{Disk: cid, Mount: path, Reason: err.Error()}
	}
	m, err := s.mountOf(resolved)
	switch {
	case err != nil:
		return nil, &MountError{Disk: cid, Mount: path, Reason: err.Error()}
	case m.Mountpoint != resolved:
		return nil, &MountError{Disk: cid, Mount: path, Reason: "nothing is mounted there"}
	}
	return m, nil
}

// add adds the superblock of a mount, or the disk to it if it is there.
func (s *Survey) add(found []Filesystem, cid string, m *mountinfo.Info) []Filesystem {
	sb := superblockOf(m)
	i := slices.IndexFunc(found, func(f Filesystem) bool { return f.Superblock == sb })
	if i >= 0 {
		if !slices.Contains(found[i].Disks, cid) {
			found[i].Disks = append(found[i].Disks, cid)
		}
		return found
	}
	f := Filesystem{
		Superblock: sb,
		Type:       m.FSType,
		Path:       m.Mountpoint,
		MountID:    uint64(m.ID),
		Devices:    s.devices(m),
		Disks:      []string{cid},
	}
	_, f.ReadOnly = option(m.VFSOptions, "ro")
	for _, other := range s.bySuperblock(sb) {
		f.Mounts = append(f.Mounts, other.Mountpoint)
		f.Root = f.Root || other.Mountpoint == "/"
	}
	return append(found, f)
}

// rank orders filesystems so that one whose device lies on another (a loop
// image) is frozen before it: the upper one still has to write below. An image
// that cannot be seen from here, as in a container, lies on none of them.
func (s *Survey) rank(found []Filesystem) ([]Filesystem, error) {
	below := make([][]Superblock, len(found))
	for i, f := range found {
		layers, err := s.layersOf(s.byID(f.MountID))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot tell what %q is stacked upon: %w", f.Path, err)
		}
		below[i] = layers[1:]
	}
	for range found { // a stack is at most as deep as there are filesystems
		for upper, layers := range below {
			for lower := range found {
				if slices.Contains(layers, found[lower].Superblock) {
					found[lower].Rank = max(found[lower].Rank, found[upper].Rank+1)
				}
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Filesystem) int { return a.Rank - b.Rank })
	return found, nil
}
