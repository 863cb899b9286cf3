package local_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/cpi/local"
)

// TestEveryDriver is what holds for disks of every driver on every filesystem.
func TestEveryDriver(t *testing.T) {
	for _, s := range stages {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			f := s.mount(t)
			for name, test := range map[string]func(*testing.T, *place){
				"a snapshot is the disk at its time":                testSnapshot,
				"a disk from a snapshot holds what that holds":      testFromSnapshot,
				"a disk from no snapshot is refused":                testFromNone,
				"a disk is created, listed and deleted":             testDisks,
				"a disk is attached as often as it is asked":        testAttach,
				"two disks change places":                           testSwap,
				"what cannot be swapped is not":                     testSwapRefused,
				"metadata of a disk is merged":                      testMetadata,
				"snapshots are listed, whatever became of sidecars": testList,
				"a snapshot is deleted once":                        testDeleteSnapshot,
				"what a crash left is swept unless it is in use":    testSweep,
				"calls at a time do not disturb each other":         testConcurrent,
			} {
				t.Run(name, func(t *testing.T) { test(t, f.place(t)) })
			}
			for _, cid := range oddNames {
				t.Run(fmt.Sprintf("a disk of name %.20q works", cid), func(t *testing.T) { testName(f.place(t), cid) })
			}
		})
	}
}

// must takes what a call returned and ends the test for an error.
func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func raw(text string) json.RawMessage { return json.RawMessage(text) }

// fromSnapshot are the properties of a disk from a snapshot.
func fromSnapshot(cid string) local.Object { return local.Object{"snapshot_cid": raw(`"` + cid + `"`)} }

func sidecar(t *testing.T, path string) map[string]any {
	t.Helper()
	text := must(os.ReadFile(path))(t)
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

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

func wantError(t *testing.T, err error, kind cpi.ErrorType, part string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), part) {
		t.Errorf("got %v, want %s with %q", err, kind, part)
	}
}

func testDisks(t *testing.T, p *place) {
	cid := must(p.CreateDisk(3, local.Object{"type": raw(`"fast"`)}, "vm-1"))(t)
	p.addDisk("linked", 1)
	for vm, want := range map[string][]string{"vm-1": {cid, "linked"}, "vm-2": {"linked"}} {
		if got := must(p.Disks(vm))(t); !slices.Equal(got, want) {
			t.Errorf("%s: got %v", vm, got)
		}
	}
	if info := must(os.Stat(filepath.Join(p.folder("disks"), p.entry(cid))))(t); p.driver == "image" &&
		(info.Size() != 3*mib || info.Mode() != 0o600) || p.driver == "btrfs" && info.Mode() != os.ModeDir|0o755 {
		t.Errorf("got %d bytes, mode %v", info.Size(), info.Mode())
	}
	if err := p.DeleteDisk(cid); err != nil {
		t.Error(err)
	}
	if has, err := p.HasDisk(cid); has || err != nil {
		t.Errorf("after the deletion: %v, %v", has, err)
	}
	wantError(t, p.DeleteDisk(cid), cpi.DiskNotFound, cid)
	p.wantOnly("disks", "linked")
}

func testAttach(t *testing.T, p *place) {
	p.addDisk("disk-1", mib)
	_, err := p.AttachDisk("disk-2")
	wantError(t, err, cpi.DiskNotFound, `"disk-2"`)
	found := make([]string, 8)
	var calls sync.WaitGroup
	for i := range found {
		calls.Go(func() {
			var err error
			if found[i], err = p.store(t, p.root).AttachDisk("disk-1"); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	at := found[0]
	if others := slices.Compact(slices.Clone(found)); len(others) != 1 {
		t.Fatalf("it is attached as %q", others)
	}
	t.Cleanup(func() { _ = p.DetachDisk("disk-1") })
	mounted := use(t, p, at)
	for _, err := range []error{p.DeleteDisk("disk-1"), p.DetachDisk("disk-1")} {
		wantError(t, err, cpi.CloudError, `"disk-1"`)
	}
	unmount(t, mounted)
	for range 2 {
		eventually(t, func() error { return p.DetachDisk("disk-1") })
	}
	wantError(t, p.DetachDisk("disk-2"), cpi.DiskNotFound, `"disk-2"`)
	eventually(t, func() error { return p.DeleteDisk("disk-1") })
	p.wantOnly("disks")
}

// use mounts what is attached somewhere, and returns where. An image gets a filesystem.
func use(t *testing.T, p *place, at string) string {
	t.Helper()
	mounted := t.TempDir()
	if p.driver == "btrfs" {
		command(t, "mount", "--bind", at, mounted)
		return mounted
	}
	command(t, "mkfs.ext4", "-q", at)
	command(t, "mount", at, mounted)
	return mounted
}

func testSwap(t *testing.T, p *place) {
	a := must(p.CreateDisk(8, nil, "vm-1"))(t)
	p.overwrite(a, "the old one")
	snapshot := must(p.SnapshotDisk(a, nil))(t)
	b := must(p.CreateDisk(8, fromSnapshot(snapshot), "vm-2"))(t)
	p.overwrite(b, "the new one")
	of := func(cid string) string { return p.content("disks", cid) }
	old, renewed := of(a), of(b)
	for range 2 {
		if err := p.SwapDisks(a, b); err != nil {
			t.Fatal(err)
		}
		if of(a) != renewed || of(b) != old {
			t.Error("they have not changed places")
		}
		old, renewed = renewed, old
	}
	if got := must(p.Disks("vm-1"))(t); !slices.Equal(got, []string{a}) {
		t.Errorf("the sidecars went with the data: vm-1 has %v", got)
	}
	p.wantOnly("disks", a, b)
}

func testSwapRefused(t *testing.T, p *place) {
	p.addDisk("a", 1)
	p.addDisk("b", 2)
	before := p.contents()
	for _, tt := range []struct {
		a, b string
		kind cpi.ErrorType
		part string
	}{
		{"a", "c", cpi.DiskNotFound, `disk "c" is not there`},
		{"c", "a", cpi.DiskNotFound, `disk "c" is not there`},
		{"a", "a", cpi.CpiError, "they are one"},
		{"a", "", cpi.CpiError, `""`},
		{"", "", cpi.CpiError, `""`},
		{"a", "../disks/b", cpi.CpiError, `"../disks/b"`},
	} {
		wantError(t, p.SwapDisks(tt.a, tt.b), tt.kind, tt.part)
	}
	mounted := use(t, p, must(p.AttachDisk("b"))(t))
	for _, err := range []error{p.SwapDisks("a", "b"), p.SwapDisks("b", "a")} {
		wantError(t, err, cpi.CloudError, `disk "b" is attached`)
	}
	unmount(t, mounted)
	eventually(t, func() error { return p.DetachDisk("b") })
	if p.driver == "image" {
		delete(before, "b") // it was formatted
	}
	for cid, want := range before {
		if got := p.content("disks", cid); got != want {
			t.Errorf("%s has changed", cid)
		}
	}
}

func testMetadata(t *testing.T, p *place) {
	cid := must(p.CreateDisk(1, local.Object{"type": raw(`"fast"`)}, "vm-1"))(t)
	for _, given := range []local.Object{{"a": raw("1"), "b": raw("2")}, {"b": raw("[3]")}} {
		if err := p.SetDiskMetadata(cid, given); err != nil {
			t.Fatal(err)
		}
	}
	got := sidecar(t, filepath.Join(p.folder("disks"), cid+".json"))
	delete(got, "created_at")
	want := map[string]any{
		"vm_cid": "vm-1", "size": float64(mib), "cloud_properties": map[string]any{"type": "fast"},
		"metadata": map[string]any{"a": 1.0, "b": []any{3.0}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	wantNames(t, p.folder("disks"), p.entry(cid), cid+".json")
	wantError(t, p.SetDiskMetadata("other", nil), cpi.DiskNotFound, `"other"`)
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

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func testConcurrent(t *testing.T, p *place) {
	p.addDisk("d", 2*mib)
	var calls sync.WaitGroup
	kept := make([]string, 4)
	for i := range kept {
		calls.Go(func() {
			for round := range 3 {
				cid, err := p.store(t, p.root).SnapshotDisk("d", nil)
				if err == nil {
					err = oneRound(t, p, cid, fmt.Sprintf("%d-%d", i, round))
				}
				if err == nil && round < 2 {
					err = p.DeleteSnapshot(cid)
				}
				if err != nil {
					t.Error(err)
					return
				}
				kept[i] = cid
			}
		})
	}
	calls.Wait()
	for _, cid := range kept {
		if cid == "" || p.content("disks", "d") != p.content("snapshots", cid) {
			t.Errorf("%q differs from the disk", cid)
		}
	}
	p.wantOnly("snapshots", kept...)
	p.wantOnly("disks", "d")
	text := string(must(os.ReadFile(filepath.Join(p.folder("disks"), "d.json")))(t))
	if n := strings.Count(text, `": 1`); n != 12 {
		t.Errorf("%d of 12 keys were kept", n)
	}
}

// oneRound makes two disks, swaps and deletes them.
func oneRound(t *testing.T, p *place, snapshot, key string) error {
	s := p.store(t, p.root)
	if err := s.SetDiskMetadata("d", local.Object{key: raw("1")}); err != nil {
		return err
	}
	one, err := s.CreateDisk(20, fromSnapshot(snapshot), "")
	if err != nil {
		return err
	}
	other, err := s.CreateDisk(1, nil, "")
	if err != nil {
		return err
	}
	return errors.Join(s.SwapDisks(one, other), s.DeleteDisk(one), s.DeleteDisk(other))
}

// oddNames are names that operators may give their disks.
var oddNames = []string{
	"-rf", " a  b ", "quo\"te'", "new\nline", "tab\t*?[a]{b,c}", "ünï∞", `back\slash`, "%s%d$(x)`y`",
	"disk-", "a.tmp-b", strings.Repeat("a", 200), strings.Repeat("ü", 100),
}

func testName(p *place, cid string) {
	t := p.t
	p.addDisk(cid, 1)
	if got := must(p.Disks("vm"))(t); !slices.Equal(got, []string{cid}) {
		t.Errorf("listed are %q", got)
	}
	snapshot := must(p.SnapshotDisk(cid, local.Object{}))(t)
	if p.content("disks", cid) != p.content("snapshots", snapshot) {
		t.Error("the snapshot differs from the disk")
	}
	if got := must(p.Snapshots())(t); len(got) != 1 || got[0].DiskCID != cid {
		t.Errorf("the list has %+v", got)
	}
	disk := must(p.CreateDisk(20, fromSnapshot(snapshot), "vm"))(t)
	at := must(p.AttachDisk(cid))(t)
	if info, err := os.Stat(at); err != nil || info.Mode().IsRegular() {
		t.Errorf("attached is %q: %v, %v", at, info, err)
	}
	err := errors.Join(p.DetachDisk(cid), p.SetDiskMetadata(cid, local.Object{}), p.SwapDisks(cid, disk),
		p.DeleteDisk(cid), p.DeleteDisk(disk), p.DeleteSnapshot(snapshot))
	if err != nil {
		t.Error(err)
	}
	p.wantOnly("disks")
	p.wantOnly("snapshots")
}
