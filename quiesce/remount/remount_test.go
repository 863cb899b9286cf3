package remount_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce/loopfs"
	"github.com/quiesced/quiesced/quiesce/remount"
)

// disk is a filesystem on a loop device that outlives its mounts, and its copy on
// another, as a disk and one made from its snapshot are.
type disk struct {
	dir, at            string
	device, copy       string
	deviceFile, toCopy string
}

// newDisk makes a filesystem, mounts it with options, writes the file "old" to it, and
// copies it before it writes "new".
func newDisk(t *testing.T, fstype string, size int64, options string) *disk {
	t.Helper()
	dir := t.TempDir()
	d := &disk{dir: dir, at: filepath.Join(dir, "store"), deviceFile: filepath.Join(dir, "disk.img"), toCopy: filepath.Join(dir, "copy.img")}
	must(t, os.WriteFile(d.deviceFile, nil, 0o600))
	must(t, os.Truncate(d.deviceFile, size))
	must(t, loopfs.Format(d.deviceFile, fstype))
	must(t, os.Mkdir(d.at, 0o755))
	d.device = attach(t, d.deviceFile)
	command(t, "mount", "-o", options, d.device, d.at)
	t.Cleanup(func() { unmountAll(t, d.at) })
	must(t, os.WriteFile(filepath.Join(d.at, "old"), nil, 0o600))
	must(t, os.Mkdir(filepath.Join(d.at, "sub"), 0o755))
	command(t, "fsfreeze", "-f", d.at)
	out, err := exec.Command("cp", "--sparse=always", d.deviceFile, d.toCopy).CombinedOutput()
	command(t, "fsfreeze", "-u", d.at)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d.copy = attach(t, d.toCopy)
	must(t, os.WriteFile(filepath.Join(d.at, "new"), nil, 0o600))
	return d
}

func attach(t *testing.T, image string) string {
	t.Helper()
	out, err := exec.Command("losetup", "--find", "--show", image).Output()
	must(t, err)
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { command(t, "losetup", "-d", device) })
	return device
}

// unmountAll unmounts whatever is mounted at a directory and below, the last first.
func unmountAll(t *testing.T, at string) {
	t.Helper()
	for _, m := range slices.Backward(mountsBelow(t, at)) {
		command(t, "umount", m.point)
	}
}

type mounted struct{ point, source, options string }

// mountsBelow reads /proc/mounts.
func mountsBelow(t *testing.T, at string) []mounted {
	t.Helper()
	text, err := os.ReadFile("/proc/mounts")
	must(t, err)
	var all []mounted
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if f[1] == at || strings.HasPrefix(f[1], at+"/") {
			all = append(all, mounted{f[1], f[0], f[3]})
		}
	}
	return all
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Errorf("%s %q: %v\n%s", name, args, err, out)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// kinds are the filesystems, the smallest sizes, and options that a disk may have.
var kinds = []struct {
	fstype, options string
	size            int64
}{
	{"ext4", "nosuid,noatime,errors=remount-ro,data=journal", 16 << 20},
	{"xfs", "nodev,relatime,inode64,logbufs=4", loopfs.MinXFS},
}

func TestADiskIsTakenOutAndItsCopyIsMountedInItsPlace(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.fstype, func(t *testing.T) {
			d := newDisk(t, k.fstype, k.size, k.options)
			bound := filepath.Join(d.dir, "bound")
			must(t, os.Mkdir(bound, 0o755))
			command(t, "mount", "--bind", filepath.Join(d.at, "sub"), bound)
			command(t, "mount", "-o", "remount,bind,ro,nosuid", bound)
			command(t, "mount", "--bind", d.at, filepath.Join(d.at, "sub"))
			before := mountsBelow(t, d.dir)
			found, err := remount.Of(d.at)
			must(t, err)
			if points := remount.Points(found.Mounts); !slices.Equal(points, []string{d.at, bound, d.at + "/sub"}) {
				t.Fatalf("mounts are %q", points)
			}
			must(t, remount.Try(t.Context(), d.copy, found.Mounts))
			if diff := cmp.Diff(before, mountsBelow(t, d.dir), cmp.AllowUnexported(mounted{})); diff != "" {
				t.Errorf("after trying the copy: -before +after\n%s", diff)
			}
			must(t, found.Unmount(t.Context()))
			if left := mountsBelow(t, d.dir); len(left) > 0 {
				t.Fatalf("still mounted: %v", left)
			}
			difference, err := remount.Differ(t.Context(), d.device, d.copy)
			must(t, err)
			for path, want := range map[string]bool{d.device: true, d.copy: false} {
				if got, err := difference.IsOne(path); err != nil || got != want {
					t.Errorf("%s: got %v, %v", path, got, err)
				}
			}
			for range 2 { // the second time there is nothing to do
				must(t, again(t, d.copy, found.Mounts))
			}
			for i := range before {
				before[i].source = d.copy
			}
			if diff := cmp.Diff(before, mountsBelow(t, d.dir), cmp.AllowUnexported(mounted{})); diff != "" {
				t.Errorf("-before +after\n%s", diff)
			}
			if _, err := os.Stat(filepath.Join(d.at, "new")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("what was written after the copy was made is there: %v", err)
			}
			if _, err := os.Stat(filepath.Join(d.at, "old")); err != nil {
				t.Error(err)
			}
			unmountAll(t, d.dir)
		})
	}
}

// again mounts a disk in place of another.
func again(t *testing.T, path string, mounts []remount.Mount) error {
	t.Helper()
	d, err := remount.At(path, mounts)
	must(t, err)
	return d.Mount(t.Context())
}

func TestWhoeverUsesADiskIsNamed(t *testing.T) {
	for name, script := range map[string]string{
		"has its working directory there": `cd "$1/sub" && echo up && read end`,
		"open":                            `exec 3<"$1/old" && echo up && read end`,
		"in another mount namespace":      `exec unshare -m --propagation private sh -c 'echo up && read end'`,
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk(t, "ext4", 16<<20, "rw")
			end := background(t, script, d.at)
			found, err := remount.Of(d.at)
			must(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			err = found.Unmount(ctx)
			var busy *remount.BusyError
			if !errors.As(err, &busy) || len(busy.Holders) != 1 || !strings.Contains(err.Error(), name) || busy.Holders[0].Command != "sh" {
				t.Errorf("got %v", err)
			}
			end()
			must(t, found.Unmount(t.Context()))
		})
	}
}

func TestAnUnmountingThatHasNoTimeSaysSo(t *testing.T) {
	d := newDisk(t, "ext4", 16<<20, "rw")
	found, err := remount.Of(d.at)
	must(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("somebody ended it"))
	if err := found.Unmount(ctx); err == nil || !strings.Contains(err.Error(), "somebody ended it") {
		t.Errorf("got %v", err)
	}
	if now := mountsBelow(t, d.at); len(now) != 1 {
		t.Errorf("mounted are %v", now)
	}
}

// background runs a shell script until the function that it returns is called.
func background(t *testing.T, script string, args ...string) (end func()) {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-c", script, "sh"}, args...)...)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if n, err := out.Read(make([]byte, 3)); n != 3 {
		t.Fatalf("the script does not run: %v", err)
	}
	end = func() { in.Close(); _ = cmd.Wait() }
	t.Cleanup(end)
	return end
}

func TestAnotherFilesystemIsNeitherHiddenNorLost(t *testing.T) {
	d := newDisk(t, "ext4", 16<<20, "rw")
	found, err := remount.Of(d.at)
	must(t, err)
	command(t, "mount", "-t", "tmpfs", "tmpfs", filepath.Join(d.at, "sub"))
	if _, err := remount.Of(d.at); err == nil || !strings.Contains(err.Error(), `tmpfs is mounted within it, at "`+d.at+`/sub"`) {
		t.Errorf("got %v", err)
	}
	command(t, "umount", filepath.Join(d.at, "sub"))
	must(t, found.Unmount(t.Context()))
	command(t, "mount", "-t", "tmpfs", "tmpfs", d.at)
	if err := again(t, d.device, found.Mounts); err == nil || !strings.Contains(err.Error(), "tmpfs on tmpfs is mounted there") {
		t.Errorf("got %v", err)
	}
	command(t, "umount", d.at)
}

func TestWhatCannotBeMountedIsFoundOutAside(t *testing.T) {
	d := newDisk(t, "ext4", 16<<20, "rw")
	found, err := remount.Of(d.at)
	must(t, err)
	must(t, os.Truncate(d.toCopy, 0))
	must(t, os.Truncate(d.toCopy, 16<<20)) // the loop device goes on with it: all is zero
	if err := remount.Try(t.Context(), d.copy, found.Mounts); err == nil || !strings.Contains(err.Error(), "cannot mount the disk aside") {
		t.Errorf("got %v", err)
	}
}

func TestDisksThatHoldTheSameAreNotToldApart(t *testing.T) {
	dir := t.TempDir()
	image := func(name string, size int64, mark int64) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, os.Truncate(path, size))
		if mark > 0 {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteAt([]byte("x"), mark)
			must(t, err)
			must(t, f.Close())
		}
		return attach(t, path)
	}
	a, b, longer, marked := image("a", 5<<20, 0), image("b", 5<<20, 0), image("c", 6<<20, 0), image("d", 5<<20, 5<<20-1)
	if _, err := remount.Differ(t.Context(), a, b); !errors.Is(err, remount.ErrSame) {
		t.Errorf("got %v", err)
	}
	late, cancel := context.WithTimeoutCause(t.Context(), 0, errors.New("it takes too long"))
	defer cancel()
	if _, err := remount.Differ(late, a, b); err == nil || !strings.Contains(err.Error(), "cannot compare the disks") || !strings.Contains(err.Error(), "it takes too long") {
		t.Errorf("without time: %v", err)
	}
	for name, other := range map[string]string{"a longer one": longer, "one whose last byte differs": marked} {
		d, err := remount.Differ(t.Context(), a, other)
		must(t, err)
		if one, err := d.IsOne(a); !one || err != nil {
			t.Errorf("%s: %v, %v", name, one, err)
		}
		if one, err := d.IsOne(other); one || err != nil {
			t.Errorf("%s: %v, %v", name, one, err)
		}
	}
	d, err := remount.Differ(t.Context(), a, marked)
	must(t, err)
	third := image("e", 5<<20, 5<<20-2)
	if _, err := d.IsOne(third); err == nil || !strings.Contains(err.Error(), "neither of the two") {
		t.Errorf("got %v", err)
	}
}

func TestASubvolumeIsADiskOfItsOwn(t *testing.T) {
	host, err := loopfs.Make(t.TempDir(), "host", "btrfs", 128<<20)
	must(t, err)
	t.Cleanup(func() { must(t, host.Close()) })
	at := filepath.Join(t.TempDir(), "store")
	must(t, os.Mkdir(at, 0o755))
	one, other := filepath.Join(host.Mount, "one"), filepath.Join(host.Mount, "other")
	command(t, "btrfs", "subvolume", "create", one)
	command(t, "btrfs", "subvolume", "snapshot", one, other)
	must(t, os.WriteFile(filepath.Join(one, "new"), nil, 0o600))
	command(t, "mount", "--bind", one, at)
	t.Cleanup(func() { unmountAll(t, at) })
	found, err := remount.Of(at)
	must(t, err)
	if points := remount.Points(found.Mounts); !slices.Equal(points, []string{at}) {
		t.Fatalf("mounts are %q", points)
	}
	d, err := remount.Differ(t.Context(), one, other)
	must(t, err)
	must(t, found.Unmount(t.Context()))
	must(t, os.Rename(one, one+".aside"))
	must(t, os.Rename(other, one))
	must(t, os.Rename(one+".aside", other))
	for path, want := range map[string]bool{one: false, other: true} {
		if got, err := d.IsOne(path); err != nil || got != want {
			t.Errorf("%s: got %v, %v", path, got, err)
		}
	}
	for range 2 {
		must(t, again(t, one, found.Mounts))
	}
	if _, err := os.Stat(filepath.Join(at, "new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the other subvolume is not there: %v", err)
	}
	if n := len(mountsBelow(t, at)); n != 1 {
		t.Errorf("%d mounts", n)
	}
	if err := again(t, other, found.Mounts); err == nil || !strings.Contains(err.Error(), "is mounted there") {
		t.Errorf("got %v", err)
	}
}
