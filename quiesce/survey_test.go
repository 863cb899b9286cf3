package quiesce_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/moby/sys/mountinfo"

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

func TestMountTableIsReadLineByLine(t *testing.T) {
	table := strings.Join([]string{plainLine, bareLine, escapedLine, btrfsLine}, "\n") + "\n"
	got, err := quiesce.ParseMounts([]byte(table))
	must(t, err)
	want := []*mountinfo.Info{
		{
			ID: 36, Parent: 35, Major: 98, Root: "/", Mountpoint: "/var/vcap/store", Options: "rw,noatime",
			Optional: "shared:7 master:1", FSType: "ext4", Source: "/dev/vdb1", VFSOptions: "rw,errors=continue",
		},
		{
			ID: 25, Parent: 1, Major: 8, Minor: 1, Root: "/", Mountpoint: "/", Options: "rw",
			FSType: "ext4", Source: "/dev/sda1", VFSOptions: "rw",
		},
		{
			ID: 40, Parent: 35, Minor: 44, Root: `/a\b`, Mountpoint: "/mnt/with space\ttab\nline", Options: "rw",
			FSType: "tmpfs", Source: "my tmp", VFSOptions: "rw",
		},
		{
			ID: 41, Parent: 35, Minor: 45, Root: "/sub", Mountpoint: "/data", Options: "rw",
			FSType: "btrfs", Source: "/dev/loop7", VFSOptions: "rw,space_cache=v2,subvolid=256,subvol=/sub",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestMountTableThatWasNotReadInFullIsAnError(t *testing.T) {
	for name, table := range map[string]string{
		"nothing at all":             "",
		"an empty line":              "\n",
		"a line cut before the dash": plainLine + "\n" + plainLine[:50],
		"a line cut behind the dash": plainLine + "\n" + plainLine[:72],
		"no dash":                    strings.Replace(plainLine, " - ", " ", 1),
		"a device without a colon":   strings.Replace(plainLine, "98:0", "980", 1),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := quiesce.ParseMounts([]byte(table))
			if err == nil || !strings.HasPrefix(err.Error(), "cannot parse the mount table") {
				t.Errorf("got %d mounts and error %v", len(got), err)
			}
		})
	}
}

func TestOptionsAreFoundByTheirWholeNameAndUnescaped(t *testing.T) {
	type answer struct {
		Value string
		There bool
	}
	overlay := strings.Fields(overlayLine)[9]
	for name, c := range map[string]struct {
		options, key string
		want         answer
	}{
		"the first one":                      {"ro,relatime", "ro", answer{"", true}},
		"the last one":                       {"rw,errors=continue", "errors", answer{"continue", true}},
		"a prefix of another is not there":   {"rootcontext=x,rw", "ro", answer{}},
		"a value is not a name":              {"errors=remount-ro", "remount-ro", answer{}},
		"a comma and a space are written so": {overlay, "upperdir", answer{"/a,b c/u", true}},
		"a backslash is written so":          {`upperdir=/a\134054`, "upperdir", answer{`/a\054`, true}},
		"a letter beyond ASCII":              {`upperdir=/\303\251`, "upperdir", answer{"/é", true}},
	} {
		t.Run(name, func(t *testing.T) {
			var got answer
			got.Value, got.There = quiesce.Option(c.options, c.key)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func FuzzParseMounts(f *testing.F) {
	for _, seed := range []string{
		plainLine, bareLine, escapedLine, btrfsLine, overlayLine, readOnlyLine,
		bareLine + "\n" + overlayLine + "\n", plainLine[:50], plainLine[:72], "", "\n",
		`1 2 3:4 \04 /\999\1 rw - x.y \ \777`, `1 2 -1:99999999999 / / rw a b c - t s o o`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, table []byte) {
		mounts, err := quiesce.ParseMounts(table)
		if err != nil {
			if mounts != nil {
				t.Errorf("got mounts with the error %v", err)
			}
			return
		}
		lines := bytes.Count(bytes.TrimSuffix(table, []byte("\n")), []byte("\n")) + 1
		if len(mounts) != lines {
			t.Errorf("got %d mounts of %d lines", len(mounts), lines)
		}
		for _, m := range mounts {
			value, there := quiesce.Option(m.VFSOptions, "upperdir")
			if len(value) > len(m.VFSOptions) || there && !strings.Contains(m.VFSOptions, "upperdir") {
				t.Errorf("option upperdir of %q is %q", m.VFSOptions, value)
			}
		}
	})
}

func TestSurveyNamesTheTableThatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	if _, err := (quiesce.System{Proc: dir}).Survey(); err == nil || !strings.Contains(err.Error(), dir+"/self/mountinfo") {
		t.Errorf("got %v", err)
	}
	must(t, os.MkdirAll(dir+"/self", 0o755))
	must(t, os.WriteFile(dir+"/self/mountinfo", []byte(plainLine+"\n"), 0o600))
	if _, err := (quiesce.System{Proc: dir}).Survey(); err != nil {
		t.Error(err)
	}
}

// What the survey makes of real mounts.

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
	run(t, "mkfs.btrfs", append([]string{"-q", "-f"}, loops...)...)
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

func TestOnlyAReadOnlySuperblockIsReadOnly(t *testing.T) {
	dir := t.TempDir()
	store := makeFS(t, dir, "store", "ext4")
	bound := bind(t, store.Mount, dir+"/bound")
	run(t, "mount", "-o", "remount,bind,ro", bound)
	t.Run("a read-only mount of a filesystem that others write", func(t *testing.T) {
		if got := find(t, bound); got[0].ReadOnly {
			t.Errorf("got %+v", got[0])
		}
	})
	t.Run("a filesystem remounted read-only", func(t *testing.T) {
		run(t, "mount", "-o", "remount,ro", store.Mount)
		if got := find(t, store.Mount); !got[0].ReadOnly {
			t.Errorf("got %+v", got[0])
		}
	})
}

func TestFilesystemsThatCannotBeHeldAreNotFreezable(t *testing.T) {
	dir := t.TempDir()
	tmpfs := mount(t, dir+"/tmpfs", "-t", "tmpfs", "none")
	for name, at := range map[string]string{"tmpfs": tmpfs, "overlay": overlay(t, tmpfs, dir+"/merged")} {
		t.Run(name, func(t *testing.T) {
			f := find(t, at)[0]
			freeze := fmt.Sprintf("cannot freeze %q: a filesystem of type %s cannot be held by freezing it", at, name)
			if err := f.Freezable(); err == nil || err.Error() != freeze {
				t.Errorf("got %v\nwant %s", err, freeze)
			}
			write := fmt.Sprintf("cannot write out %q: a filesystem of type %s is never opened", at, name)
			if err := f.Writable(); err == nil || err.Error() != write {
				t.Errorf("got %v\nwant %s", err, write)
			}
		})
	}
}

func TestRootFilesystemIsFrozenOnlyIfConfigured(t *testing.T) {
	bound := bind(t, t.TempDir(), t.TempDir()+"/of-root")
	for name, at := range map[string]string{"the root": "/", "a bind mount of a part of it": bound} {
		t.Run(name, func(t *testing.T) {
			s, err := quiesce.System{Sys: t.TempDir()}.Survey() // without what else lies on this machine's disk
			must(t, err)
			found, err := s.Filesystems(disks(at))
			must(t, err)
			i := slices.IndexFunc(found.Filesystems, func(f quiesce.Filesystem) bool { return f.Path == at })
			if i < 0 || !found.Filesystems[i].Root || found.Filesystems[i].PassedOver() != "" || found.Filesystems[i].Freezable() != nil {
				t.Fatalf("got %+v", found.Filesystems)
			}
			binary := quiesce.Dependency{Name: "the daemon's executable", Path: "/usr/bin/env"}
			want := &quiesce.DependencyError{Dependency: binary, Mount: at}
			if diff := cmp.Diff(error(want), s.Independent(found.Filesystems[i:i+1], []quiesce.Dependency{binary})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestTypesThatAreNeverOpened(t *testing.T) {
	for fstype, c := range map[string]struct{ freezable, writable bool }{
		"ext4": {true, true}, "xfs": {true, true}, "btrfs": {true, true}, "ext3": {true, true}, "f2fs": {true, true},
		"vfat": {false, true}, "exfat": {false, true},
		"nfs": {}, "nfs4": {}, "fuse": {}, "fuse.sshfs": {}, "fuseblk.ntfs-3g": {}, "virtiofs": {}, "9p": {}, "ceph": {}, "cifs": {},
		"autofs": {}, "tmpfs": {}, "ramfs": {}, "overlay": {},
	} {
		t.Run(fstype, func(t *testing.T) {
			f := quiesce.Filesystem{Type: fstype, Path: "/store"}
			if freeze, write := f.Freezable(), f.Writable(); (freeze == nil) != c.freezable || (write == nil) != c.writable {
				t.Errorf("got %v, %v", freeze, write)
			}
		})
	}
}

func TestWhatIsPassedOver(t *testing.T) {
	for name, c := range map[string]struct {
		filesystem quiesce.Filesystem
		want       string
	}{
		"what is found and can be frozen is not": {quiesce.Filesystem{Type: "xfs"}, ""},
		"what is configured is not":              {quiesce.Filesystem{Type: "vfat", Configured: true, Root: true}, ""},
		"what is read-only, if configured too": {
			quiesce.Filesystem{Type: "xfs", Configured: true, ReadOnly: true}, "/x is read-only: nothing to bring to rest",
		},
		"the root that was found": {
			quiesce.Filesystem{Type: "xfs", Root: true},
			"/x lies on the disk and is not frozen: it is the root filesystem, and not among the configured mounts",
		},
		"a type that was found and cannot be frozen": {
			quiesce.Filesystem{Type: "vfat"},
			"/x lies on the disk and is not frozen: a filesystem of type vfat cannot be held by freezing it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.filesystem.Path = "/x"
			if got := c.filesystem.PassedOver(); got != c.want {
				t.Errorf("got %q\nwant %q", got, c.want)
			}
		})
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
