package quiesce_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/quiesced/quiesced/quiesce"
)

// lines of a mount table, each of another kind.

const (
	plainLine    = `36 35 98:0 / /var/vcap/store rw,noatime shared:7 master:1 - ext4 /dev/vdb1 rw,errors=continue`
	bareLine     = `25 1 8:1 / / rw - ext4 /dev/sda1 rw`
	escapedLine  = `40 35 0:44 /a\134b /mnt/with\040space\011tab\012line rw - tmpfs my\040tmp rw`
	btrfsLine    = `41 35 0:45 /sub /data rw - btrfs /dev/loop7 rw,space_cache=v2,subvolid=256,subvol=/sub`
	overlayLine  = `42 35 0:46 / /merged rw - overlay overlay rw,lowerdir=/l1:/l2,upperdir=/a\054b\040c/u,workdir=/w`
	readOnlyLine = `43 35 7:9 / /ro ro,relatime - ext4 /dev/loop9 ro`
)

// paths compares what these tests are about and leaves out what differs from

// one mount to the next.

var unstable = cmpopts.IgnoreFields(quiesce.Filesystem{}, "Superblock", "MountID")

func TestFilesystemOnALoopDevice(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fstype, func(t *testing.T) {
			store := makeFS(t, t.TempDir(), "store", fstype)
			want := []quiesce.Filesystem{{
				Type: fstype, Path: store.Mount, Mounts: []string{store.Mount},
				Devices: []string{source(t, store.Mount)}, Disks: []string{"disk-0"}, Configured: true,
			}}
			got := find(t, store.Mount)
			if diff := cmp.Diff(want, got, unstable); diff != "" {
				t.Fatalf("-want +got:\n%s", diff)
			}
			if got[0].String() != device(t, store.Mount) {
				t.Errorf("superblock is %s, findmnt says %s", got[0].Superblock, device(t, store.Mount))
			}
			if err := got[0].Freezable(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestBindMountIsTheSameFilesystem(t *testing.T) {
	dir := t.TempDir()
	store := makeFS(t, dir, "store", "ext4")
	must(t, os.Mkdir(store.Mount+"/sub", 0o755))
	bound := bind(t, store.Mount+"/sub", dir+"/bound")
	got := find(t, bound, store.Mount)
	want := []quiesce.Filesystem{{
		Type: "ext4", Path: bound, Mounts: []string{store.Mount, bound},
		Devices: []string{source(t, store.Mount)}, Disks: []string{"disk-0", "disk-1"}, Configured: true,
	}}
	if diff := cmp.Diff(want, got, unstable); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestDiskThatNamesTwoMountsOfAFilesystemIsListedOnce(t *testing.T) {
	dir := t.TempDir()
	store := makeFS(t, dir, "store", "ext4")
	bound := bind(t, store.Mount, dir+"/bound")
	got, err := survey(t).Filesystems([]quiesce.Disk{{CID: "d", Mounts: []string{store.Mount, bound}}})
	must(t, err)
	if len(got.Filesystems) != 1 || len(got.Filesystems[0].Disks) != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestBtrfsSubvolumesAreOneFilesystem(t *testing.T) {
	dir := t.TempDir()
	top := makeFS(t, dir, "top", "btrfs")
	run(t, "btrfs", "-q", "subvolume", "create", top.Mount+"/a")
	run(t, "btrfs", "-q", "subvolume", "create", top.Mount+"/b")
	loop := "/dev/" + source(t, top.Mount)
	a := mount(t, dir+"/a", "-o", "subvol=a", loop)
	b := mount(t, dir+"/b", "-o", "subvol=b", loop)
	want := []quiesce.Filesystem{{
		Type: "btrfs", Path: a, Mounts: []string{top.Mount, a, b},
		Devices: []string{source(t, top.Mount)}, Disks: []string{"disk-0", "disk-1"}, Configured: true,
	}}
	if diff := cmp.Diff(want, find(t, a, b), unstable); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// btrfsOf makes a btrfs of several devices. The kernel would remember them when other disks
// have their numbers.
func btrfsOf(t *testing.T, devices ...string) {
	t.Helper()
	run(t, "mkfs.btrfs", append([]string{"-q", "-f"}, devices...)...)
	t.Cleanup(func() {
		for _, device := range devices {
			run(t, "btrfs", "device", "scan", "--forget", device)
		}
	})
}

func TestBtrfsOfTwoDevicesHasBoth(t *testing.T) {
	dir := t.TempDir()
	var loops []string
	for _, image := range []string{dir + "/1.img", dir + "/2.img"} {
		must(t, os.WriteFile(image, nil, 0o600))
		must(t, os.Truncate(image, sizes["btrfs"]))
		loop := run(t, "losetup", "-f", "--show", image)
		t.Cleanup(func() { run(t, "losetup", "-d", loop) })
		loops = append(loops, loop)
	}
	btrfsOf(t, loops...)
	for i, named := range loops {
		t.Run([]string{"mounted by the first", "mounted by the second"}[i], func(t *testing.T) {
			at := mount(t, dir+"/store", named)
			got := find(t, at)
			want := []string{strings.TrimPrefix(loops[0], "/dev/"), strings.TrimPrefix(loops[1], "/dev/")}
			sorted := cmpopts.SortSlices(strings.Compare)
			if diff := cmp.Diff(want, got[0].Devices, sorted); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestMountPointIsFoundThroughALink(t *testing.T) {
	dir := t.TempDir()
	store := makeFS(t, dir, "store", "ext4")
	must(t, os.Symlink(store.Mount, dir+"/link"))
	for name, path := range map[string]string{"a link": dir + "/link", "a trailing slash": store.Mount + "/"} {
		t.Run(name, func(t *testing.T) {
			got := find(t, path)
			if len(got) != 1 || got[0].Path != store.Mount {
				t.Errorf("got %+v, want %s", got, store.Mount)
			}
		})
	}
}

func TestMountPointWithCharactersThatTheKernelEscapes(t *testing.T) {
	dir := t.TempDir()
	for name, base := range map[string]string{
		"a space": "a b", "a tab": "a\tb", "a new line": "a\nb", "a backslash": `a\b`, "a number sign": "a#b",
		"what looks escaped": `a\040b`, "a letter beyond ASCII": "é", "a comma": "a,b",
	} {
		t.Run(name, func(t *testing.T) {
			at := mount(t, dir+"/"+base, "-t", "tmpfs", "none")
			if got := find(t, at); got[0].Path != at || got[0].Type != "tmpfs" {
				t.Errorf("got %+v, want %q", got[0], at)
			}
		})
	}
}

func TestMountThatCoversAnotherIsTheOneFound(t *testing.T) {
	dir := t.TempDir()
	lower := makeFS(t, dir, "store", "ext4")
	mount(t, dir+"/upper", "-t", "tmpfs", "none")
	run(t, "mount", "--bind", dir+"/upper", lower.Mount)
	defer run(t, "umount", lower.Mount)
	got := find(t, lower.Mount)
	if len(got) != 1 || got[0].Type != "tmpfs" {
		t.Errorf("got %+v, want the tmpfs", got)
	}
}

func TestMountHiddenByAMountOfItsParentIsNotFound(t *testing.T) {
	dir := t.TempDir()
	makeFS(t, dir, "parent", "ext4")
	hidden := mount(t, dir+"/parent/store", "-t", "tmpfs", "none")
	cover := mount(t, dir+"/cover", "-t", "tmpfs", "none")
	must(t, os.Mkdir(cover+"/store", 0o755))
	run(t, "mount", "--bind", cover, dir+"/parent")
	defer run(t, "umount", dir+"/parent")
	_, err := survey(t).Filesystems(disks(hidden))
	want := &quiesce.MountError{Disk: "disk-0", Mount: hidden, Reason: "nothing is mounted there"}
	if diff := cmp.Diff(error(want), err); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestMountThatIsNotThereNamesDiskAndMount(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/file", nil, 0o600))
	must(t, os.Symlink("loop", dir+"/loop"))
	must(t, os.Symlink("gone", dir+"/dangling"))
	for name, c := range map[string]struct{ path, reason string }{
		"a missing path":                      {dir + "/missing", "it does not exist"},
		"a link that leads nowhere":           {dir + "/dangling", "it does not exist"},
		"a directory that is no mount point":  {dir, "nothing is mounted there"},
		"a file that is no mount point":       {dir + "/file", "nothing is mounted there"},
		"a path below a file":                 {dir + "/file/store", "not a directory"},
		"a link to itself is not called gone": {dir + "/loop", "too many levels of symbolic links"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := survey(t).Filesystems([]quiesce.Disk{{CID: "vol-7", Mounts: []string{c.path}}})
			want := &quiesce.MountError{Disk: "vol-7", Mount: c.path, Reason: c.reason}
			if diff := cmp.Diff(error(want), err); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestMountErrorSaysWhatIsWrong(t *testing.T) {
	err := &quiesce.MountError{Disk: "vol-7", Mount: "/var/vcap/store", Reason: "nothing is mounted there"}
	want := `cannot use mount "/var/vcap/store" of disk "vol-7": nothing is mounted there`
	if err.Error() != want {
		t.Errorf("got %s\nwant %s", err, want)
	}
}

// overlay mounts one whose upper directory lies in dir.

func overlay(t testing.TB, dir, at string) string {
	t.Helper()
	for _, name := range []string{"lower", "upper", "work"} {
		must(t, os.Mkdir(dir+"/"+name, 0o755))
	}
	options := "lowerdir=" + dir + "/lower,upperdir=" + dir + "/upper,workdir=" + dir + "/work"
	return mount(t, at, "-t", "overlay", "-o", options, "overlay")
}
