package local_test

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/cpi/local"
)

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
