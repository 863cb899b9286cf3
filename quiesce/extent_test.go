package quiesce_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce"
)

// attach makes a sparse image and a loop device of it, for as long as the test
// runs.
func attach(t testing.TB, image string, size int64) string {
	t.Helper()
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, size))
	loop := run(t, "losetup", "-f", "--show", image)
	t.Cleanup(func() { run(t, "losetup", "-d", loop) })
	return loop
}

// partitioned makes a disk with partitions of 20 MiB each, with an ext4 in each,
// which the kernel is told of as partx(8) does.
func partitioned(t testing.TB, dir string, partitions int) string {
	t.Helper()
	const sectors = 20 << 20 / 512
	loop := attach(t, dir+"/disk.img", int64(partitions+1)*20<<20)
	for i := range partitions {
		n, start := fmt.Sprint(i+1), fmt.Sprint(2048+i*sectors)
		run(t, "addpart", loop, n, start, fmt.Sprint(sectors))
		t.Cleanup(func() { run(t, "delpart", loop, n) })
		run(t, "mkfs.ext4", "-q", "-F", loop+"p"+n)
	}
	return loop
}

// brief is what most of these tests are about.
type brief struct {
	Path       string
	Configured bool
	Disks      string
}

func briefly(c *quiesce.Contents) []brief {
	var all []brief
	for _, f := range c.Filesystems {
		all = append(all, brief{f.Path, f.Configured, strings.Join(f.Disks, " ")})
	}
	slices.SortFunc(all, func(a, b brief) int { return strings.Compare(a.Path, b.Path) })
	return all
}

func TestPartitionsOfOneDiskAreFoundTogether(t *testing.T) {
	dir := t.TempDir()
	loop := partitioned(t, dir, 3)
	one := mount(t, dir+"/1", loop+"p1")
	two := mount(t, dir+"/2", loop+"p2")
	bind(t, two, dir+"/bound")
	link := link(t, loop, dir+"/link")
	for name, c := range map[string]struct {
		disk        quiesce.Disk
		first, rest bool // which is configured
	}{
		"from a mount of a partition":      {quiesce.Disk{CID: "d", Mounts: []string{one}}, true, false},
		"from both mounts":                 {quiesce.Disk{CID: "d", Mounts: []string{one, two}}, true, true},
		"from the device of the disk":      {quiesce.Disk{CID: "d", Device: loop}, false, false},
		"from a link to it":                {quiesce.Disk{CID: "d", Device: link}, false, false},
		"from a partition's device":        {quiesce.Disk{CID: "d", Device: loop + "p2"}, false, false},
		"from one that is mounted nowhere": {quiesce.Disk{CID: "d", Device: loop + "p3"}, false, false},
		"from the device and a mount":      {quiesce.Disk{CID: "d", Device: loop, Mounts: []string{two}}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			got := contents(t, c.disk)
			want := []brief{{one, c.first, "d"}, {two, c.rest, "d"}}
			if diff := cmp.Diff(want, briefly(got)); diff != "" || len(got.Notes) > 0 {
				t.Errorf("notes %q, -want +got:\n%s", got.Notes, diff)
			}
			if whole := bytesOf(t, loop); got.Sizes["d"] != whole {
				t.Errorf("its size is %d, want the whole disk's, %d", got.Sizes["d"], whole)
			}
		})
	}
}

// bytesOf is a block device's size, as blockdev(8) has it.
func bytesOf(t testing.TB, device string) int64 {
	t.Helper()
	size, err := strconv.ParseInt(run(t, "blockdev", "--getsize64", device), 10, 64)
	must(t, err)
	return size
}

func TestDiskThatIsFoundThroughAnotherIsOnBoth(t *testing.T) {
	dir := t.TempDir()
	bottom := makeSized(t, dir, "bottom", "ext4", 64<<20)
	image := makeFS(t, bottom.Mount, "image", "ext4")
	bound := bind(t, image.Mount, dir+"/bound")
	want := []brief{{bottom.Mount, true, "disk-0"}, {bound, true, "disk-0 disk-1"}}
	slices.SortFunc(want, func(a, b brief) int { return strings.Compare(a.Path, b.Path) })
	if diff := cmp.Diff(want, briefly(contents(t, disks(bottom.Mount, bound)...))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestImageOnALoopDeviceIsTheDiskAndNotWhatItLiesOn(t *testing.T) {
	bottom := makeSized(t, t.TempDir(), "bottom", "ext4", 64<<20)
	image := makeFS(t, bottom.Mount, "image", "ext4")
	got := contents(t, quiesce.Disk{CID: "d", Device: "/dev/" + source(t, image.Mount)})
	if diff := cmp.Diff([]brief{{image.Mount, false, "d"}}, briefly(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestLoopDeviceOverAPartitionLiesOnItsDisk(t *testing.T) {
	dir := t.TempDir()
	loop := partitioned(t, dir, 1)
	over := run(t, "losetup", "-f", "--show", loop+"p1")
	t.Cleanup(func() { run(t, "losetup", "-d", over) })
	at := mount(t, dir+"/over", over)
	if diff := cmp.Diff([]brief{{at, false, "d"}}, briefly(contents(t, quiesce.Disk{CID: "d", Device: loop}))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestBtrfsOfTwoDevicesIsFoundFromEach(t *testing.T) {
	dir := t.TempDir()
	loops := []string{attach(t, dir+"/1.img", sizes["btrfs"]), attach(t, dir+"/2.img", sizes["btrfs"])}
	btrfsOf(t, loops...)
	at := mount(t, dir+"/store", loops[0])
	run(t, "btrfs", "-q", "subvolume", "create", at+"/sub")
	mount(t, dir+"/sub", "-o", "subvol=sub", loops[1])
	for i, loop := range loops {
		t.Run([]string{"the first", "the second"}[i], func(t *testing.T) {
			got := contents(t, quiesce.Disk{CID: "d", Device: loop})
			if diff := cmp.Diff([]brief{{at, false, "d"}}, briefly(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			other := filepath.Base(loops[1-i])
			want := []string{at + " lies on " + other + " too, which no disk of this snapshot covers: the snapshot has only a part of it"}
			if diff := cmp.Diff(want, got.Notes); diff != "" {
				t.Errorf("notes, -want +got:\n%s", diff)
			}
		})
	}
	t.Run("and has the size of both, or of the one that is the disk", func(t *testing.T) {
		got := contents(t, quiesce.Disk{CID: "a", Mounts: []string{at}}, quiesce.Disk{CID: "b", Device: loops[1]})
		if diff := cmp.Diff(map[string]int64{"a": 2 * sizes["btrfs"], "b": sizes["btrfs"]}, got.Sizes); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
	t.Run("both, as two disks", func(t *testing.T) {
		got := contents(t, quiesce.Disk{CID: "a", Device: loops[0]}, quiesce.Disk{CID: "b", Device: loops[1]})
		if diff := cmp.Diff([]brief{{at, false, "a b"}}, briefly(got)); diff != "" || len(got.Notes) > 0 {
			t.Errorf("notes %q, -want +got:\n%s", got.Notes, diff)
		}
	})
}

// A disk whose table of mounts is long: 64 images on one filesystem.
func TestDiskWithSixtyFourNestedFilesystems(t *testing.T) {
	dir := t.TempDir()
	bottom := makeSized(t, dir, "bottom", "ext4", 256<<20)
	must(t, os.WriteFile(dir+"/one.img", nil, 0o600))
	must(t, os.Truncate(dir+"/one.img", 2<<20))
	run(t, "mkfs.ext4", "-q", "-F", "-O", "^has_journal", dir+"/one.img")
	want := []ranked{}
	for i := range 64 {
		image := fmt.Sprintf("%s/%02d.img", bottom.Mount, i)
		run(t, "cp", dir+"/one.img", image)
		want = append(want, ranked{mount(t, fmt.Sprintf("%s/%02d", dir, i), "-o", "loop", image), 0})
	}
	want = append(want, ranked{bottom.Mount, 1})
	got := ranks(find(t, bottom.Mount))
	slices.SortFunc(got, func(a, b ranked) int { return strings.Compare(fmt.Sprint(a.Rank, a.Path), fmt.Sprint(b.Rank, b.Path)) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestDeviceThatCannotBeUsedIsNamedWithItsDisk(t *testing.T) {
	dir := t.TempDir()
	store := makeFS(t, dir, "store", "ext4")
	for name, c := range map[string]struct{ device, want string }{
		"a missing path":            {dir + "/missing", "it does not exist"},
		"a link that leads nowhere": {link(t, "gone", dir+"/dangling"), "it does not exist"},
		"a directory":               {dir, "it is no block device"},
		"a character device":        {"/dev/null", "it is no block device"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := survey(t).Filesystems([]quiesce.Disk{{CID: "vol-7", Device: c.device, Mounts: []string{store.Mount}}})
			want := fmt.Sprintf("cannot use device %q of disk \"vol-7\": %s", c.device, c.want)
			if err == nil || err.Error() != want {
				t.Errorf("got %v\nwant %s", err, want)
			}
		})
	}
}

func TestMountThatDoesNotLieOnTheDeviceIsRefused(t *testing.T) {
	dir := t.TempDir()
	store, other := makeFS(t, dir, "store", "ext4"), makeFS(t, dir, "other", "ext4")
	tmpfs := mount(t, dir+"/tmpfs", "-t", "tmpfs", "none")
	device := "/dev/" + source(t, store.Mount)
	for name, at := range map[string]string{"another disk's": other.Mount, "a tmpfs": tmpfs} {
		t.Run(name, func(t *testing.T) {
			_, err := survey(t).Filesystems([]quiesce.Disk{{CID: "d", Device: device, Mounts: []string{store.Mount, at}}})
			want := &quiesce.MountError{Disk: "d", Mount: at, Reason: fmt.Sprintf("it does not lie on %q", device)}
			if diff := cmp.Diff(error(want), err); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestDiskOfWhichNothingIsMounted(t *testing.T) {
	loop := attach(t, t.TempDir()+"/disk.img", 16<<20)
	got := contents(t, quiesce.Disk{CID: "vol-7", Device: loop})
	want := &quiesce.Contents{
		Notes: []string{"nothing on disk vol-7 is mounted: nothing to bring to rest"},
		Sizes: map[string]int64{"vol-7": 16 << 20},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestReadOnlyAndOtherTypesBesideAreFoundAndPassedOver(t *testing.T) {
	dir := t.TempDir()
	loop := partitioned(t, dir, 2)
	store := mount(t, dir+"/1", loop+"p1")
	second := mount(t, dir+"/2", "-o", "ro", loop+"p2")
	found := find(t, store)
	want := second + " is read-only: nothing to bring to rest"
	if len(found) != 2 || found[0].PassedOver() != "" || found[1].PassedOver() != want {
		t.Errorf("got %+v", found)
	}
}

// lvm is a machine whose disks vdb and vdc hold a volume group with a volume
// across both and one beside it, and an array on what is left of vdb. Nothing of
// it exists but for its mount points.
func lvm(t testing.TB, at string) quiesce.System {
	t.Helper()
	numbers := map[string]string{
		"vdb": "240:16", "vdb1": "240:17", "vdb2": "240:18", "vdb3": "240:19", "vdc": "240:32",
		"dm-0": "241:0", "dm-1": "241:1", "md0": "242:0",
	}
	var entries []string
	for name, number := range numbers {
		dir := "devices/" + name
		if strings.HasPrefix(name, "vdb") && name != "vdb" {
			dir = "devices/vdb/" + name
			entries = append(entries, dir+"/partition=1\n")
		}
		entries = append(entries, dir+"/dev="+number+"\n",
			"class/block/"+name+" -> ../../"+dir, "dev/block/"+number+" -> ../../"+dir)
	}
	for _, pair := range []string{"dm-0 vdb1", "dm-0 vdc", "dm-1 vdb1", "md0 vdb2"} {
		upper, lower, _ := strings.Cut(pair, " ")
		dir := "devices/" + lower
		if lower != "vdc" {
			dir = "devices/vdb/" + lower
		}
		entries = append(entries, "devices/"+upper+"/slaves/"+lower+"/", dir+"/holders/"+upper+"/")
	}
	system := fakeSys(t, entries...)
	system.Proc, system.Dev = t.TempDir(), t.TempDir()
	for name, number := range numbers {
		major, minor, _ := strings.Cut(number, ":")
		run(t, "mknod", filepath.Join(system.Dev, name), "b", major, minor)
	}
	table := "25 1 8:1 / / rw - ext4 /dev/vda1 rw\n"
	for i, line := range []string{"241:0 store", "241:1 logs", "242:0 array"} {
		number, name, _ := strings.Cut(line, " ")
		must(t, os.Mkdir(filepath.Join(at, name), 0o755))
		table += fmt.Sprintf("%d 25 %s / %s/%s rw - ext4 /dev/x rw\n", 30+i, number, at, name)
	}
	must(t, os.MkdirAll(system.Proc+"/self", 0o755))
	must(t, os.WriteFile(system.Proc+"/self/mountinfo", []byte(table), 0o600))
	return system
}

func TestVolumesAndArraysAreFoundThroughTheirDisks(t *testing.T) {
	at := t.TempDir()
	system := lvm(t, at)
	all := func(store, logs, array bool) []brief {
		return []brief{{at + "/array", array, "d"}, {at + "/logs", logs, "d"}, {at + "/store", store, "d"}}
	}
	apart := at + "/store lies on vdc too, which no disk of this snapshot covers: the snapshot has only a part of it"
	for name, c := range map[string]struct {
		disk  quiesce.Disk
		want  []brief
		notes []string
	}{
		"from a volume across two disks": {quiesce.Disk{Mounts: []string{at + "/store"}}, all(true, false, false), nil},
		"from a volume on one of them":   {quiesce.Disk{Mounts: []string{at + "/logs"}}, all(false, true, false), []string{apart}},
		"from an array":                  {quiesce.Disk{Mounts: []string{at + "/array"}}, all(false, false, true), []string{apart}},
		"from a disk":                    {quiesce.Disk{Device: system.Dev + "/vdb"}, all(false, false, false), []string{apart}},
		"from a partition":               {quiesce.Disk{Device: system.Dev + "/vdb3"}, all(false, false, false), []string{apart}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := system.Survey()
			must(t, err)
			c.disk.CID = "d"
			got, err := s.Filesystems([]quiesce.Disk{c.disk})
			must(t, err)
			if diff := cmp.Diff(c.want, briefly(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(c.notes, got.Notes); diff != "" {
				t.Errorf("notes, -want +got:\n%s", diff)
			}
		})
	}
	t.Run("a device file that is another's", func(t *testing.T) {
		must(t, os.Remove(system.Dev+"/vdb3"))
		run(t, "mknod", system.Dev+"/vdb3", "b", "240", "99")
		s, err := system.Survey()
		must(t, err)
		_, err = s.Filesystems(disks(at + "/logs"))
		want := fmt.Sprintf("cannot tell what lies on disk \"disk-0\": cannot tell whether vdb3 is in use: %q is not its device file", system.Dev+"/vdb3")
		if err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	})
}
