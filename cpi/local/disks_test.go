package local_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/cpi/local"
)

func TestAnImageElsewhereIsADiskThroughALink(t *testing.T) {
	root, elsewhere := mountXFS(t), filepath.Join(t.TempDir(), "store.img")
	writeImage(t, elsewhere, mib)
	m := open(t, root)
	if err := os.Mkdir(filepath.Join(root, "disks"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, filepath.Join(root, "disks", "mine.img")); err != nil {
		t.Fatal(err)
	}
	if has, err := m.HasDisk("mine"); !has || err != nil {
		t.Errorf("got %v, %v", has, err)
	}
	cid, err := m.SnapshotDisk("mine", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !same(t, elsewhere, filepath.Join(root, "snapshots", cid+".img")) {
		t.Error("the snapshot differs from the image")
	}
	if err := m.SetDiskMetadata("mine", local.Object{"a": json.RawMessage("1")}); err != nil {
		t.Error(err)
	}
	if err := m.DeleteDisk("mine"); err != nil {
		t.Error(err)
	}
	wantNames(t, filepath.Join(root, "disks"))
	if _, err := os.Stat(elsewhere); err != nil {
		t.Errorf("the image was deleted: %v", err)
	}
}

func TestWhatIsNoImageIsNoDisk(t *testing.T) {
	root := t.TempDir()
	m := open(t, root)
	dir := filepath.Join(root, "disks")
	err := errors.Join(os.Mkdir(dir, 0o700), os.Mkdir(filepath.Join(dir, "dir.img"), 0o700),
		syscall.Mkfifo(filepath.Join(dir, "pipe.img"), 0o600), os.Symlink("/dev/zero", filepath.Join(dir, "zero.img")),
		os.Symlink("gone", filepath.Join(dir, "dangling.img")))
	if err != nil {
		t.Fatal(err)
	}
	for disk, want := range map[string]cpi.ErrorType{
		"dir": cpi.CloudError, "pipe": cpi.CloudError, "zero": cpi.CloudError,
		"dangling": cpi.DiskNotFound, "missing": cpi.DiskNotFound,
	} {
		_, err := m.SnapshotDisk(disk, nil)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), disk) {
			t.Errorf("%s: got %v, want %s", disk, err, want)
		}
	}
}

func TestOddCIDsAreRefusedByName(t *testing.T) {
	m := open(t, t.TempDir())
	for name, cid := range map[string]string{
		"an empty one":               "",
		"this directory":             ".",
		"the parent":                 "..",
		"a hidden one":               ".tmp-x",
		"one with a slash":           "../disks/a",
		"one with a NUL":             "a\x00b",
		"one longer than is allowed": strings.Repeat("a", 201),
	} {
		t.Run(name, func(t *testing.T) {
			_, has := m.HasDisk(cid)
			_, snapshot := m.SnapshotDisk(cid, nil)
			for i, err := range []error{has, snapshot, m.DeleteDisk(cid), m.DeleteSnapshot(cid), m.SetDiskMetadata(cid, nil)} {
				if !errors.Is(err, cpi.CpiError) || !strings.Contains(err.Error(), fmt.Sprintf("%q", cid)) {
					t.Errorf("method %d: got %v", i, err)
				}
			}
		})
	}
}

func TestTheLongestCIDWorks(t *testing.T) {
	root, cid := t.TempDir(), strings.Repeat("a", 200)
	addDisk(t, root, cid, 1)
	m := open(t, root)
	_, err := m.SnapshotDisk(cid, nil)
	if err := errors.Join(err, m.SetDiskMetadata(cid, local.Object{}), m.DeleteDisk(cid)); err != nil {
		t.Error(err)
	}
}

func TestADiskIsCreatedListedAndDeleted(t *testing.T) {
	root := t.TempDir()
	m := open(t, root)
	cid, err := m.CreateDisk(3, local.Object{"type": json.RawMessage(`"fast"`)}, "vm-1")
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(root, "disks", cid+".img"))
	if err != nil || info.Size() != 3*mib || info.Mode() != 0o600 {
		t.Errorf("got %v, %v", info, err)
	}
	addDisk(t, root, "linked", 1)
	for vm, want := range map[string][]string{"vm-1": {cid, "linked"}, "vm-2": {"linked"}} {
		if got, err := m.Disks(vm); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %v, %v", vm, got, err)
		}
	}
	if err := m.DeleteDisk(cid); err != nil {
		t.Error(err)
	}
	if has, err := m.HasDisk(cid); has || err != nil {
		t.Errorf("after the deletion: %v, %v", has, err)
	}
	if err := m.DeleteDisk(cid); !errors.Is(err, cpi.DiskNotFound) {
		t.Errorf("deleted again: %v", err)
	}
	wantNames(t, filepath.Join(root, "disks"), "linked.img")
}

func TestADiskOfNoSizeIsNotCreated(t *testing.T) {
	m := open(t, t.TempDir())
	for _, size := range []int64{0, -1, 1 << 60} {
		if _, err := m.CreateDisk(size, nil, ""); !errors.Is(err, cpi.CpiError) {
			t.Errorf("%d: got %v", size, err)
		}
	}
}

func TestMetadataOfADiskIsMerged(t *testing.T) {
	root := t.TempDir()
	m := open(t, root)
	cid, err := m.CreateDisk(1, local.Object{"type": json.RawMessage(`"fast"`)}, "vm-1")
	if err != nil {
		t.Fatal(err)
	}
	for _, given := range []local.Object{{"a": json.RawMessage("1"), "b": json.RawMessage("2")}, {"b": json.RawMessage("[3]")}} {
		if err := m.SetDiskMetadata(cid, given); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(root, "disks", cid+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	delete(got, "created_at")
	want := map[string]any{
		"vm_cid": "vm-1", "size": float64(mib), "cloud_properties": map[string]any{"type": "fast"},
		"metadata": map[string]any{"a": 1.0, "b": []any{3.0}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	wantNames(t, filepath.Join(root, "disks"), cid+".img", cid+".json")
	if err := m.SetDiskMetadata("other", nil); !errors.Is(err, cpi.DiskNotFound) {
		t.Errorf("got %v for a disk that is not there", err)
	}
}
