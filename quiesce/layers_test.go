package quiesce_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/quiesced/quiesced/quiesce"
)

// ranked are mount points with the order in which they are frozen.
type ranked struct {
	Path string
	Rank int
}

func ranks(found []quiesce.Filesystem) []ranked {
	var all []ranked
	for _, f := range found {
		all = append(all, ranked{f.Path, f.Rank})
	}
	return all
}

func TestStackIsRankedFromTheTopWhateverOrderIsConfigured(t *testing.T) {
	bottom := makeSized(t, t.TempDir(), "bottom", "ext4", 160<<20)
	middle := makeSized(t, bottom.Mount, "middle", "ext4", 64<<20)
	top := makeFS(t, middle.Mount, "top", "ext4")
	b, m, p := bottom.Mount, middle.Mount, top.Mount
	three := []ranked{{p, 0}, {m, 1}, {b, 2}}
	for name, c := range map[string]struct {
		mounts []string
		want   []ranked
	}{
		"the top alone":                      {[]string{p}, []ranked{{p, 0}}},
		"the middle, with the top found":     {[]string{m}, []ranked{{p, 0}, {m, 1}}},
		"the bottom, with both others found": {[]string{b}, three},
		"top and bottom":                     {[]string{b, p}, three},
		"top to bottom":                      {[]string{p, m, b}, three},
		"bottom to top":                      {[]string{b, m, p}, three},
		"the middle one first":               {[]string{m, p, b}, three},
		"the middle one last":                {[]string{b, p, m}, three},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, ranks(find(t, c.mounts...))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestFilesystemsSideBySideShareARank(t *testing.T) {
	dir := t.TempDir()
	bottom := makeSized(t, dir, "bottom", "ext4", 64<<20)
	left, right := makeFS(t, bottom.Mount, "left", "ext4"), makeFS(t, bottom.Mount, "right", "ext4")
	apart := makeFS(t, dir, "apart", "ext4")
	want := []ranked{{apart.Mount, 0}, {right.Mount, 0}, {left.Mount, 0}, {bottom.Mount, 1}}
	if diff := cmp.Diff(want, ranks(find(t, apart.Mount, right.Mount, left.Mount, bottom.Mount))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPathsOnADiskDependOnIt(t *testing.T) {
	dir := t.TempDir()
	store := makeSized(t, dir, "store", "ext4", 64<<20)
	on := store.Mount
	must(t, os.Mkdir(on+"/sub", 0o755))
	bound := bind(t, on+"/sub", dir+"/bound")
	image := makeFS(t, on, "image", "ext4")
	must(t, os.Mkdir(on+"/over", 0o755))
	must(t, os.Mkdir(on+"/a, b", 0o755))
	must(t, os.Symlink(on+"/sub/later", dir+"/dangling"))
	must(t, os.Symlink("store/sub/later", dir+"/relative"))
	for name, path := range map[string]string{
		"on the disk itself":                             on,
		"in a directory of it":                           on + "/sub",
		"in a bind mount of it":                          bound,
		"in a loop image on it":                          image.Mount,
		"in an overlay that writes to it":                overlay(t, on+"/over", dir+"/merged"),
		"in an overlay that writes to an escaped path":   overlayAt(t, on+"/a, b", dir+"/escaped"),
		"not there yet, below it":                        on + "/not/there/yet",
		"not there yet, in a loop image":                 image.Mount + "/not/there/yet",
		"a link from elsewhere to it":                    link(t, on+"/sub", dir+"/link"),
		"a link to what is not there yet":                dir + "/dangling",
		"below a link to what is not there yet":          dir + "/dangling/more",
		"a relative link to what is not there yet":       dir + "/relative",
		"a file on the disk, through the dir above":      dir + "/../" + filepath.Base(dir) + "/store/sub/file",
		"in a directory that is the image's mount point": filepath.Join(on, "image"),
	} {
		t.Run(name, func(t *testing.T) {
			s := survey(t)
			found, err := s.Filesystems(disks(on))
			must(t, err)
			d := quiesce.Dependency{Name: "state_dir", Path: path}
			err = s.Independent(found.Filesystems, []quiesce.Dependency{{Name: "socket", Path: "/proc"}, d})
			at := on
			if strings.Contains(name, "image") {
				at = image.Mount // which is frozen, too
			}
			if diff := cmp.Diff(error(&quiesce.DependencyError{Dependency: d, Mount: at}), err); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestPathsElsewhereDependOnNothingThatIsFrozen(t *testing.T) {
	dir := t.TempDir()
	store := makeFS(t, dir, "store", "ext4")
	other := makeFS(t, dir, "other", "ext4")
	tmpfs := mount(t, dir+"/tmpfs", "-t", "tmpfs", "none")
	// What is mounted on the disk does not lie on it.
	must(t, os.Mkdir(store.Mount+"/sub", 0o755))
	over := bind(t, tmpfs, store.Mount+"/sub/over")
	s := survey(t)
	found, err := s.Filesystems(disks(store.Mount))
	must(t, err)
	for name, path := range map[string]string{
		"the directory of the mount point": dir,
		"another filesystem":               other.Mount,
		"a tmpfs":                          tmpfs,
		"a tmpfs mounted upon the disk":    over,
		"an overlay of a tmpfs":            overlay(t, tmpfs, dir+"/merged"),
		"not there yet":                    dir + "/not/there/yet",
	} {
		t.Run(name, func(t *testing.T) {
			if err := survey(t).Independent(found.Filesystems, []quiesce.Dependency{{Name: "state_dir", Path: path}}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDependencyErrorNamesPathAndMount(t *testing.T) {
	err := &quiesce.DependencyError{Dependency: quiesce.Dependency{Name: "state_dir", Path: "/a/b"}, Mount: "/store"}
	want := `cannot freeze "/store": state_dir "/a/b" lies on it, and the daemon would wait for itself`
	if err.Error() != want {
		t.Errorf("got %s\nwant %s", err, want)
	}
}

func TestPathWhoseLayersCannotBeToldIsAnError(t *testing.T) {
	dir := t.TempDir()
	store := makeFS(t, dir, "store", "ext4")
	moved := makeFS(t, dir, "moved", "ext4")
	deleted := makeFS(t, dir, "deleted", "ext4")
	must(t, os.WriteFile(dir+"/file", nil, 0o600))
	// The kernel tells an image's path as it is now, but not where nobody sees it.
	must(t, os.Mkdir(dir+"/covered", 0o755))
	must(t, os.Rename(moved.Image, dir+"/covered/moved.img"))
	run(t, "mount", "-t", "tmpfs", "none", dir+"/covered")
	uncover := func() {
		run(t, "umount", dir+"/covered")
		must(t, os.Rename(dir+"/covered/moved.img", moved.Image))
	}
	defer uncover()
	must(t, os.Remove(deleted.Image))
	defer func() { must(t, os.WriteFile(deleted.Image, nil, 0o600)) }()
	s := survey(t)
	found, err := s.Filesystems(disks(store.Mount))
	must(t, err)
	for name, c := range map[string]struct{ path, want string }{
		"the image was deleted":  {deleted.Mount, "deleted.img\" under " + source(t, deleted.Mount) + " was deleted"},
		"the image is covered":   {moved.Mount, "cannot find the image under " + source(t, moved.Mount)},
		"a path that cannot be":  {dir + "/file/state", "not a directory"},
		"a path that is no path": {dir + "/" + strings.Repeat("x", 300), "file name too long"},
	} {
		t.Run(name, func(t *testing.T) {
			err := s.Independent(found.Filesystems, []quiesce.Dependency{{Name: "state_dir", Path: c.path}})
			if _, ok := errors.AsType[*quiesce.DependencyError](err); ok || err == nil {
				t.Fatalf("got %v", err)
			}
			prefix := fmt.Sprintf("cannot tell what state_dir %q lies on: ", c.path)
			if !strings.HasPrefix(err.Error(), prefix) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s … %s", err, prefix, c.want)
			}
		})
	}
	t.Run("a disk whose image is covered lies on no other", func(t *testing.T) {
		want := []ranked{{store.Mount, 0}, {moved.Mount, 0}}
		if diff := cmp.Diff(want, ranks(find(t, store.Mount, moved.Mount))); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
	t.Run("a disk whose image was deleted is refused", func(t *testing.T) {
		_, err := survey(t).Filesystems(disks(deleted.Mount))
		if err == nil || !strings.Contains(err.Error(), "was deleted") {
			t.Errorf("got %v", err)
		}
	})
}

func link(t testing.TB, target, at string) string {
	t.Helper()
	must(t, os.Symlink(target, at))
	return at
}

// overlayAt is overlay for a directory whose name mount(8) would take apart.
func overlayAt(t testing.TB, dir, at string) string {
	t.Helper()
	for _, name := range []string{"lower", "upper", "work"} {
		must(t, os.Mkdir(dir+"/"+name, 0o755))
	}
	d := strings.ReplaceAll(dir, ",", `\,`)
	options := "lowerdir=" + d + "/lower,upperdir=" + d + "/upper,workdir=" + d + "/work"
	return mount(t, at, "-i", "-t", "overlay", "-o", options, "overlay")
}

// What is read from sysfs, on a copy.

// fakeSys lays out a sysfs: paths that end in a slash are directories, those
// with an arrow links, the others files with what follows an equals sign.
func fakeSys(t testing.TB, entries ...string) quiesce.System {
	t.Helper()
	dir := t.TempDir()
	for _, e := range entries {
		name, target, isLink := strings.Cut(e, " -> ")
		name, content, _ := strings.Cut(name, "=")
		path := filepath.Join(dir, name)
		if strings.HasSuffix(e, "/") {
			must(t, os.MkdirAll(path, 0o755))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if isLink {
			must(t, os.Symlink(target, path))
			continue
		}
		must(t, os.WriteFile(path, []byte(content), 0o600))
	}
	return quiesce.System{Sys: dir}
}

// machine is a VM with a partitioned disk, an array, a mapped device over both,
// and a loop device over an image that was deleted.
func machine(t testing.TB) quiesce.System {
	return fakeSys(t,
		"devices/pci0/virtio1/block/vdb/vdb1/partition=1\n",
		"devices/pci0/virtio1/block/vdb/vdb1/slaves/",
		"devices/pci0/virtio1/block/vdb/slaves/",
		"devices/pci0/virtio2/block/vdc/slaves/",
		"devices/pci0/virtio3/block/vdd/slaves/",
		"devices/virtual/block/dm-0/slaves/md0 -> ../../md0",
		"devices/virtual/block/dm-0/slaves/vdb1 -> ../../../../pci0/virtio1/block/vdb/vdb1",
		"devices/virtual/block/md0/slaves/vdc -> ../../../../pci0/virtio2/block/vdc",
		"devices/virtual/block/md0/slaves/vdd -> ../../../../pci0/virtio3/block/vdd",
		"devices/virtual/block/loop0/loop/backing_file=/srv/an image.img\n",
		"devices/virtual/block/loop1/loop/backing_file=/srv/gone.img (deleted)\n",
		"devices/virtual/block/loop2/slaves/",
		"class/block/vdb -> ../../devices/pci0/virtio1/block/vdb",
		"class/block/vdb1 -> ../../devices/pci0/virtio1/block/vdb/vdb1",
		"class/block/vdc -> ../../devices/pci0/virtio2/block/vdc",
		"class/block/vdd -> ../../devices/pci0/virtio3/block/vdd",
		"class/block/dm-0 -> ../../devices/virtual/block/dm-0",
		"class/block/md0 -> ../../devices/virtual/block/md0",
		"class/block/loop0 -> ../../devices/virtual/block/loop0",
		"class/block/loop1 -> ../../devices/virtual/block/loop1",
		"class/block/loop2 -> ../../devices/virtual/block/loop2",
	)
}

func TestDevicesUnderADevice(t *testing.T) {
	for name, c := range map[string]struct {
		device       string
		lower, under []string
	}{
		"a disk":                              {"vdc", nil, []string{"vdc"}},
		"a partition lies on its disk":        {"vdb1", []string{"vdb"}, []string{"vdb1", "vdb"}},
		"an array lies on its members":        {"md0", []string{"vdc", "vdd"}, []string{"md0", "vdc", "vdd"}},
		"a mapped device lies on its targets": {"dm-0", []string{"md0", "vdb1"}, []string{"dm-0", "md0", "vdb1", "vdb", "vdc", "vdd"}},
		"a loop device without an image":      {"loop2", nil, []string{"loop2"}},
		"a device that is not there":          {"sdz", nil, []string{"sdz"}},
	} {
		t.Run(name, func(t *testing.T) {
			system := machine(t)
			sorted := cmpopts.SortSlices(strings.Compare)
			if diff := cmp.Diff(c.lower, system.LowerDevices(c.device), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("lower devices, -want +got:\n%s", diff)
			}
			under, err := system.Under(c.device)
			must(t, err)
			if diff := cmp.Diff(c.under, under, sorted); diff != "" {
				t.Errorf("all devices, -want +got:\n%s", diff)
			}
		})
	}
}

func TestArrayOfManyDisksIsNoDeepStack(t *testing.T) {
	var entries []string
	for i := range 100 {
		entries = append(entries, fmt.Sprintf("class/block/md0/slaves/vd%d/", i))
	}
	under, err := fakeSys(t, entries...).Under("md0")
	if err != nil || len(under) != 101 {
		t.Errorf("got %d devices, %v", len(under), err)
	}
}

func TestDevicesThatNameEachOtherEndTheWalk(t *testing.T) {
	under, err := fakeSys(t, "class/block/dm-0/slaves/dm-1/", "class/block/dm-1/slaves/dm-0/").Under("dm-0")
	if err != nil || len(under) != 2 {
		t.Errorf("got %v, %v", under, err)
	}
}

func TestBackingFileOfADevice(t *testing.T) {
	for name, c := range map[string]struct{ device, want, err string }{
		"a loop device":                  {"loop0", "/srv/an image.img", ""},
		"a loop device without an image": {"loop2", "", ""},
		"another device":                 {"vdc", "", ""},
		"an image that was deleted": {
			"loop1", "", `the image "/srv/gone.img" under loop1 was deleted, so what it lies on cannot be told`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := machine(t).BackingFile(c.device)
			if got != c.want || err == nil && c.err != "" || err != nil && err.Error() != c.err {
				t.Errorf("got %q, %v; want %q, %q", got, err, c.want, c.err)
			}
		})
	}
}

func TestMembersOfABtrfs(t *testing.T) {
	system := fakeSys(t,
		"fs/btrfs/features/mixed_groups=0\n",
		"fs/btrfs/1111-2222/devices/vdb/",
		"fs/btrfs/1111-2222/devices/vdc/",
		"fs/btrfs/3333-4444/devices/dm-0/",
	)
	mapper := filepath.Join(t.TempDir(), "vg-lv")
	must(t, os.WriteFile(filepath.Join(filepath.Dir(mapper), "dm-0"), nil, 0o600))
	must(t, os.Symlink("dm-0", mapper))
	for name, c := range map[string]struct {
		source string
		want   []string
	}{
		"mounted by its first device":     {"/dev/vdb", []string{"vdb", "vdc"}},
		"mounted by its second device":    {"/dev/vdc", []string{"vdb", "vdc"}},
		"mounted by a link to its device": {mapper, []string{"dm-0"}},
		"mounted by a device of no btrfs": {"/dev/vdz", []string{"vdz"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, system.BtrfsMembers(c.source)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
