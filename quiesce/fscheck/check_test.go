package fscheck_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce/fscheck"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

var tools = map[string]string{"ext4": "e2fsck", "xfs": "xfs_repair", "btrfs": "btrfs"}

func TestCopyOfFilesystemInUseIsWhole(t *testing.T) {
	for fstype, tool := range tools {
		for name, frozen := range map[string]bool{"frozen": true, "as it goes": false} {
			t.Run(fstype+" "+name, func(t *testing.T) {
				f := original(t, fstype)
				device, _ := copied(t, f, frozen)
				r, err := fscheck.Check(soon(t), device)
				must(t, err)
				want := fscheck.Result{Filesystem: fstype, Tool: tool, Device: device, OK: true, Output: r.Output}
				if diff := cmp.Diff(want, r); diff != "" || r.Output == "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				mounts, err := os.ReadFile("/proc/self/mountinfo")
				must(t, err)
				if strings.Contains(string(mounts), device+" ") {
					t.Errorf("it is mounted still:\n%s", mounts)
				}
			})
		}
	}
}

func TestDamageIsFound(t *testing.T) {
	whole := map[string]*loopfs.FS{}
	for fstype := range tools {
		whole[fstype] = original(t, fstype)
	}
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			device, image := copied(t, whole[d.fstype], true)
			damage(t, image, d.places)
			command(t, "blockdev", "--flushbufs", device)
			r, err := fscheck.Check(soon(t), device)
			must(t, err)
			if r.OK || r.Output == "" {
				t.Errorf("got %+v\nwant it found", r)
			}
		})
	}
}

func TestDiskOfZerosIsEmpty(t *testing.T) {
	if r, err := fscheck.Check(soon(t), disk(t)); !errors.Is(err, fscheck.ErrEmpty) {
		t.Errorf("got %+v, %v\nwant ErrEmpty", r, err)
	}
}

func TestDataWithoutFilesystemIsDamage(t *testing.T) {
	device := disk(t)
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("all that is left"), 40<<20)
	must(t, errors.Join(err, f.Close()))
	r, err := fscheck.Check(soon(t), device)
	must(t, err)
	if r.OK || r.Filesystem != "" || !strings.Contains(r.Output, "no filesystem") {
		t.Errorf("got %+v\nwant no filesystem", r)
	}
}

func TestFilesystemOnPartitionIsChecked(t *testing.T) {
	device := disk(t)
	partition(t, device)
	r, err := fscheck.Check(soon(t), device)
	must(t, err)
	if !r.OK || r.Device != device+"p1" || r.Filesystem != "ext4" {
		t.Errorf("got %+v\nwant the partition", r)
	}
	must(t, r.Mountable(soon(t)))
	must(t, fscheck.Forget(soon(t), device))
	if _, err := os.Stat(device + "p1"); !os.IsNotExist(err) {
		t.Errorf("the partition is left: %v", err)
	}
}

// partition puts a table with one partition on a disk, and ext4 there.
func partition(t *testing.T, device string) {
	t.Helper()
	const sector, start = 512, 2048
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	must(t, err)
	entry := []byte{0, 0, 0, 0, 0x83, 0, 0, 0, 0, start >> 8, 0, 0, 0, 0xe0, 1, 0} // 60 MiB
	_, err = f.WriteAt(append(entry, make([]byte, 48)...), 446)
	must(t, err)
	_, err = f.WriteAt([]byte{0x55, 0xaa}, 510)
	must(t, errors.Join(err, f.Close()))
	command(t, "mkfs.ext4", "-q", "-E", "offset=1048576", device, "60M")
}

func TestWhatCannotBeCheckedIsSaidSo(t *testing.T) {
	mounted := original(t, "ext4")
	swap := disk(t)
	command(t, "mkswap", swap)
	spread := disk(t)
	btrfsOfTwo(t, spread, disk(t))
	for name, c := range map[string]struct{ path, want string }{
		"a device that is mounted":      {command(t, "findmnt", "-no", "SOURCE", mounted.Mount), "it is in use"},
		"a directory without checksums": {mounted.Mount, "it is a directory, and not on btrfs"},
		"what has no checker":           {swap, "holds swap, of which no checker is known"},
		"a btrfs of two devices":        {spread, "spread over 2 devices"},
		"what is neither":               {mounted.Image, "neither a block device nor a directory"},
		"a device that is not there":    {"/dev/no-such", "no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := fscheck.Check(soon(t), c.path)
			if err == nil || r.OK || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.path) {
				t.Errorf("got %+v, %v\nwant %q", r, err, c.want)
			}
		})
	}
}

func TestMissingCheckerIsNamedWithItsPackage(t *testing.T) {
	_, err := fscheck.Look("xfs_repairs")
	var missing *fscheck.MissingError
	if !errors.As(err, &missing) || !strings.HasPrefix(err.Error(), "xfs_repairs is not installed") {
		t.Errorf("got %v", err)
	}
	for _, program := range []string{"e2fsck", "xfs_repair", "btrfs", "blkid", "partx", "unshare"} {
		if _, err := fscheck.Look(program); err != nil {
			t.Error(err)
		}
	}
}

func TestEndedCheckIsNoVerdict(t *testing.T) {
	device, _ := copied(t, original(t, "ext4"), true)
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Nanosecond, errors.New("it took too long"))
	defer cancel()
	r, err := fscheck.Check(ctx, device)
	if err == nil || r.OK || !strings.Contains(err.Error(), "it took too long") {
		t.Errorf("got %+v, %v", r, err)
	}
}
