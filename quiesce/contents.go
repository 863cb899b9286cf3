package quiesce

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/moby/sys/mountinfo"
)

// Contents is what a survey found on disks.
type Contents struct {
	Filesystems []Filesystem     // each superblock once, what is stacked upon another before it
	Notes       []string         // what else lies there that an operator should know of
	Sizes       map[string]int64 // of the disks in bytes, by CID; none of a disk of unknown size
}

// contents is Contents being collected.
type contents struct {
	survey    *Survey
	elsewhere *elsewhere
	disks     []Disk
	swaps     []swap
	journals  []journal // of what the survey's table shows
	devices   []string  // every block device of the disks
	sizes     map[string]int64
	found     []found
}

// found is a filesystem with the mount through which it is reached.
type found struct {
	Filesystem
	view  *Survey // in whose table the mount is
	mount *mountinfo.Info
}

// Filesystems lists the superblocks on the disks: those that their configured
// mounts lead to, and all that lie beside them on the whole devices that a
// snapshot of the disk covers, in partitions, arrays, mapped devices and nested
// loop images, in other mount namespaces too. Some of them may have to be passed
// over. The error is a *MountError when a configured mount is not there.
func (s *Survey) Filesystems(disks []Disk) (*Contents, error) {
	swaps, err := s.system.swaps()
	if err != nil {
		return nil, err
	}
	c := &contents{survey: s, disks: disks, swaps: swaps, journals: s.journals(), sizes: map[string]int64{}}
	c.elsewhere = &elsewhere{survey: s, known: c.known()}
	for _, d := range disks {
		if err := c.disk(d); err != nil {
			return nil, err
		}
	}
	if err := c.rank(); err != nil {
		return nil, err
	}
	all := &Contents{Notes: c.notes(), Sizes: c.sizes}
	for _, f := range c.found {
		all.Filesystems = append(all.Filesystems, f.Filesystem)
	}
	return all, nil
}

// known names the block devices that are in use as swap and as journals.
func (c *contents) known() map[string]bool {
	all := map[string]bool{}
	for _, area := range c.swaps {
		if device, err := c.survey.blockDevice(area.Path); err == nil {
			all[device] = true
		}
	}
	for _, j := range c.journals {
		all[j.device] = true
	}
	return all
}

// disk adds what lies on a disk, what is configured first.
func (c *contents) disk(d Disk) error {
	var mounts []*mountinfo.Info
	var devices []string
	for _, path := range d.Mounts {
		m, err := c.survey.mounted(path)
		if err != nil {
			return &MountError{Disk: d.CID, Mount: path, Reason: err.Error()}
		}
		mounts = append(mounts, m)
		devices = append(devices, c.survey.devices(m)...)
	}
	if d.Device != "" {
		device, err := c.survey.blockDevice(d.Device)
		if err != nil {
			return fmt.Errorf("cannot use device %q of disk %q: %w", d.Device, d.CID, err)
		}
		devices = []string{device}
	}
	if size := c.survey.size(devices); size > 0 {
		c.sizes[d.CID] = size
	}
	e := c.survey.extentOf(devices)
	for i, m := range mounts {
		if d.Device != "" && !e.has(superblockOf(m)) {
			return &MountError{Disk: d.CID, Mount: d.Mounts[i], Reason: fmt.Sprintf("it does not lie on %q", d.Device)}
		}
		c.add(d.CID, found{view: c.survey, mount: m}, true)
	}
	return c.beside(d, e)
}

// beside adds what lies on a disk beside what is configured.
func (c *contents) beside(d Disk, e *extent) error {
	if err := c.elsewhere.complete(e); err != nil {
		return fmt.Errorf("cannot tell what lies on disk %q: %w", d.CID, err)
	}
	for _, f := range e.found {
		if !c.has(superblockOf(f.mount)) {
			reached, err := c.elsewhere.reach(f)
			if err != nil {
				return fmt.Errorf("cannot reach what lies on disk %q: %w", d.CID, err)
			}
			f = reached
		}
		c.add(d.CID, f, false)
	}
	for _, name := range e.devices {
		if !slices.Contains(c.devices, name) {
			c.devices = append(c.devices, name)
		}
	}
	return nil
}

func (c *contents) has(sb Superblock) bool {
	return slices.ContainsFunc(c.found, func(f found) bool { return f.Superblock == sb })
}

// mounted is the mount at a configured path, which may be reached through
// symbolic links (BOSH links /var/vcap/store on some VMs).
func (s *Survey) mounted(path string) (*mountinfo.Info, error) {
	p, err := s.locate(path)
	var failed *fs.PathError
	switch {
	case errors.As(err, &failed):
		return nil, failed.Err
	case err != nil:
		return nil, err
	case s.mayHang(p.mount) && !p.there:
		return nil, fmt.Errorf("it lies in a mount of type %s, which is never opened", p.mount.FSType)
	case !p.there:
		return nil, errors.New("it does not exist")
	case p.mount.Mountpoint != p.path:
		return nil, errors.New("nothing is mounted there")
	}
	return p.mount, nil
}

// add adds the superblock of a mount, or the disk to it if it is there. A
// configured mount takes the place of one that was only found.
func (c *contents) add(cid string, f found, configured bool) {
	sb := superblockOf(f.mount)
	i := slices.IndexFunc(c.found, func(f found) bool { return f.Superblock == sb })
	switch {
	case i < 0:
		f.Filesystem = f.view.filesystem(f.mount)
		c.found = append(c.found, f)
		i = len(c.found) - 1
	case configured && !c.found[i].Configured:
		cids := c.found[i].Disks
		f.Filesystem = f.view.filesystem(f.mount)
		f.Disks = cids
		c.found[i] = f
	}
	one := &c.found[i]
	one.Configured = one.Configured || configured
	if !slices.Contains(one.Disks, cid) {
		one.Disks = append(one.Disks, cid)
	}
}

// filesystem is the superblock of a mount, reached through it.
func (s *Survey) filesystem(m *mountinfo.Info) Filesystem {
	f := Filesystem{
		Superblock: superblockOf(m),
		Type:       m.FSType,
		Path:       s.root + m.Mountpoint,
		MountID:    uint64(m.ID),
		Devices:    s.devices(m),
	}
	_, f.ReadOnly = option(m.VFSOptions, "ro")
	for _, other := range s.bySuperblock(f.Superblock) {
		f.Mounts = append(f.Mounts, s.root+other.Mountpoint)
		f.Root = f.Root || other.Mountpoint == "/" && s.init
	}
	return f
}

// rank orders filesystems so that one whose device lies on another (a loop
// image) is frozen before it: the upper one still has to write below. An image
// that cannot be seen from here, as in a container, lies on none of them.
func (c *contents) rank() error {
	below := make([][]Superblock, len(c.found))
	for i, f := range c.found {
		layers, err := c.survey.layersOf(f.mount)
		if errors.Is(err, fs.ErrNotExist) { // the image is to be seen in its mount namespace alone
			layers, err = f.view.layersOf(f.mount)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot tell what %q is stacked upon: %w", f.Path, err)
		}
		below[i] = layers[1:]
	}
	for range c.found { // a stack is at most as deep as there are filesystems
		for upper, layers := range below {
			for lower := range c.found {
				if slices.Contains(layers, c.found[lower].Superblock) {
					c.found[lower].Rank = max(c.found[lower].Rank, c.found[upper].Rank+1)
				}
			}
		}
	}
	slices.SortStableFunc(c.found, func(a, b found) int { return a.Rank - b.Rank })
	return nil
}
