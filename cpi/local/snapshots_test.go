package local_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/cpi/local"
)

func testSnapshot(t *testing.T, p *place) {
	p.addDisk("disk-1", 5*mib+123)
	began := time.Now()
	cid := must(p.SnapshotDisk("disk-1", local.Object{"deployment": raw(`"d&p"`)}))(t)
	wantNames(t, p.folder("snapshots"), p.entry(cid), cid+".json")
	before := p.content("disks", "disk-1")
	if p.content("snapshots", cid) != before {
		t.Error("the snapshot differs from the disk")
	}
	if used := blocks(t, p.data("snapshots", cid)); used > 6*mib {
		t.Errorf("the holes were filled: it uses %d bytes", used)
	}
	got := sidecar(t, filepath.Join(p.folder("snapshots"), cid+".json"))
	at, err := time.Parse(time.RFC3339Nano, got["created_at"].(string))
	if err != nil || at.Before(began) || at.After(time.Now()) {
		t.Errorf("created_at is %v, %v", got["created_at"], err)
	}
	delete(got, "created_at")
	want := map[string]any{"disk_cid": "disk-1", "method": p.how, "metadata": map[string]any{"deployment": "d&p"}}
	if p.driver == "image" {
		want["size"] = float64(14*mib + 123)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	p.overwrite("disk-1", "changed")
	if p.content("disks", "disk-1") == before || p.content("snapshots", cid) != before {
		t.Error("the snapshot changed with the disk")
	}
	if f, err := os.OpenFile(p.data("snapshots", cid), os.O_WRONLY, 0); err == nil {
		defer f.Close()
		info, _ := f.Stat()
		if p.driver == "btrfs" || info.Mode() != 0o400 { // root may open what nobody may write
			t.Error("the snapshot can be written to")
		}
	}
}

func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Blocks * 512
}

func testFromSnapshot(t *testing.T, p *place) {
	p.addDisk("disk-1", mib)
	snapshot := must(p.SnapshotDisk("disk-1", nil))(t)
	want := p.content("snapshots", snapshot)
	disk := must(p.CreateDisk(20, fromSnapshot(snapshot), "vm-1"))(t)
	if p.content("disks", disk) != want {
		t.Error("the disk differs from the snapshot")
	}
	got := sidecar(t, filepath.Join(p.folder("disks"), disk+".json"))
	origin := map[string]any{"snapshot_cid": snapshot, "disk_cid": "disk-1"}
	if diff := cmp.Diff(origin, got["created_from"]); diff != "" {
		t.Errorf("created_from: -want +got\n%s", diff)
	}
	p.overwrite(disk, "mine")
	if p.content("snapshots", snapshot) != want || p.content("disks", "disk-1") != want {
		t.Error("another changed with the disk")
	}
	if err := p.DeleteSnapshot(snapshot); err != nil {
		t.Fatal(err)
	}
	if text := must(os.ReadFile(p.data("disks", disk)))(t); string(text[:4]) != "mine" {
		t.Errorf("after its snapshot was deleted the disk begins with %q", text[:4])
	}
	if p.driver == "image" {
		if info := must(os.Stat(p.data("disks", disk)))(t); info.Size() != 20*mib || info.Mode() != 0o600 {
			t.Errorf("got %d bytes, mode %v", info.Size(), info.Mode())
		}
	}
}

func testFromNone(t *testing.T, p *place) {
	p.addDisk("disk-1", 1)
	_, err := p.CreateDisk(20, fromSnapshot("snap-1"), "")
	wantError(t, err, cpi.CloudError, "no such file")
	if strings.Contains(err.Error(), "is not there") {
		t.Errorf("without a folder of snapshots one is called missing: %v", err)
	}
	snapshot := must(p.SnapshotDisk("disk-1", nil))(t)
	other := map[string]string{"image": `"btrfs"`, "btrfs": `"image"`}[p.driver]
	for _, tt := range []struct {
		name       string
		properties local.Object
		kind       cpi.ErrorType
		part       string
	}{
		{"one that is not there", fromSnapshot("snap-1"), cpi.CloudError, `snapshot "snap-1" is not there`},
		{"a CID that is a path", fromSnapshot("../disks/disk-1"), cpi.CpiError, `"../disks/disk-1"`},
		{"an empty CID", fromSnapshot(""), cpi.CpiError, `""`},
		{"a CID that is no string", local.Object{"snapshot_cid": raw(`[1]`)}, cpi.CpiError, `"snapshot_cid"`},
		{"a driver that there is not", local.Object{"driver": raw(`"zfs"`)}, cpi.CpiError, `"zfs"`},
		{"a driver that is no string", local.Object{"driver": raw(`1`)}, cpi.CpiError, `"driver"`},
		{"another driver", local.Object{"driver": raw(other), "snapshot_cid": raw(`"` + snapshot + `"`)}, cpi.CpiError, snapshot},
	} {
		_, err := p.CreateDisk(100, tt.properties, "")
		wantError(t, err, tt.kind, tt.part)
	}
	p.wantOnly("disks", "disk-1")
}

func testList(t *testing.T, p *place) {
	if _, err := p.Snapshots(); !errors.Is(err, cpi.CloudError) {
		t.Errorf("a root where nothing ever was has snapshots: %v", err)
	}
	p.addDisk("disk-1", mib)
	if got := must(p.Snapshots())(t); got == nil || len(got) > 0 {
		t.Errorf("before the first: got %v", got)
	}
	whole := must(p.SnapshotDisk("disk-1", local.Object{"job": raw(`"db"`), "index": raw("0")}))(t)
	missing := must(p.SnapshotDisk("disk-1", nil))(t)
	damaged := must(p.SnapshotDisk("disk-1", nil))(t)
	dir := p.folder("snapshots")
	if err := errors.Join(os.Remove(filepath.Join(dir, missing+".json")),
		os.WriteFile(filepath.Join(dir, damaged+".json"), []byte("{"), 0o600),
		os.Mkdir(filepath.Join(dir, "a directory"), 0o700)); err != nil {
		t.Fatal(err)
	}
	var used, size int64
	if p.driver == "image" {
		used, size = blocks(t, p.data("snapshots", whole)), 10*mib
	}
	want := map[string]cpi.SnapshotInfo{
		whole: {CID: whole, DiskCID: "disk-1", Size: used, DiskSize: size,
			Metadata: map[string]any{"job": "db", "index": 0.0}},
		missing: {CID: missing, Size: used, DiskSize: size},
		damaged: {CID: damaged, Size: used, DiskSize: size},
	}
	got := map[string]cpi.SnapshotInfo{}
	for _, s := range must(p.Snapshots())(t) {
		if s.Created.IsZero() == (s.CID == whole) || time.Since(s.Created) < 0 {
			t.Errorf("%s was created at %v", s.CID, s.Created)
		}
		s.Created = time.Time{}
		if len(s.Metadata) == 0 {
			s.Metadata = nil
		}
		got[s.CID] = s
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func testDeleteSnapshot(t *testing.T, p *place) {
	p.addDisk("d", 1)
	err := p.DeleteSnapshot("snap-1")
	wantError(t, err, cpi.CloudError, "no such file")
	if strings.Contains(err.Error(), "is not there") {
		t.Errorf("without a folder of snapshots one is called missing: %v", err)
	}
	cid := must(p.SnapshotDisk("d", nil))(t)
	if err := p.DeleteSnapshot(cid); err != nil {
		t.Error(err)
	}
	wantNames(t, p.folder("snapshots"))
	wantError(t, p.DeleteSnapshot(cid), cpi.CloudError, fmt.Sprintf("snapshot %q is not there", cid))
	if err := p.DeleteDisk("d"); err != nil {
		t.Errorf("a disk that had a snapshot: %v", err)
	}
}

// testSweep leaves what a killed process would.
func testSweep(t *testing.T, p *place) {
	p.addDisk("d", 1)
	first := must(p.SnapshotDisk("d", nil))(t)
	dir := p.folder("snapshots")
	leave := func(cid string) *os.File {
		path := filepath.Join(dir, ".tmp-"+p.entry(cid))
		if p.driver == "btrfs" {
			command(t, "btrfs", "subvolume", "create", path)
		} else {
			touch(t, path)
		}
		touch(t, filepath.Join(dir, cid+".json")) // the sidecar got its name, the data did not
		f := must(os.Open(path))(t)
		t.Cleanup(func() { f.Close() })
		return f
	}
	leave("snap-dead")
	touch(t, filepath.Join(dir, ".tmp-snap-older.json"))
	if err := unix.Flock(int(leave("snap-busy").Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	touch(t, filepath.Join(dir, "notes.json")) // an operator's own

	second := must(p.SnapshotDisk("d", nil))(t)
	wantNames(t, dir, p.entry(first), first+".json", p.entry(second), second+".json",
		".tmp-"+p.entry("snap-busy"), "snap-busy.json", "notes.json")
}
