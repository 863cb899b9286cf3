package local_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
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

const mib = 1 << 20

func open(t *testing.T, root string) *local.Store {
	t.Helper()
	m, err := local.Open(root, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// addDisk makes a disk with so much data at 1 MiB, between holes of 1 MiB and

// 64 MiB.

func addDisk(t *testing.T, root, cid string, data int) {
	t.Helper()
	dir := filepath.Join(root, "disks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeImage(t, filepath.Join(dir, cid+".img"), data)
}

func writeImage(t *testing.T, path string, data int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	random := rand.NewChaCha8([32]byte{1})
	block := make([]byte, mib)
	for at := 0; at < data; at += len(block) {
		random.Read(block)
		if _, err := f.WriteAt(block[:min(mib, data-at)], int64(at+mib)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(int64(data) + 65*mib); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := []string{}
	for _, entry := range entries {
		found = append(found, entry.Name())
	}
	return found
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if diff := cmp.Diff(append([]string{}, want...), names(t, dir)); diff != "" {
		t.Errorf("%s: -want +got\n%s", filepath.Base(dir), diff)
	}
}

func same(t *testing.T, a, b string) bool {
	t.Helper()
	one, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(one, other)
}

func TestASnapshotIsTheDiskAtItsTime(t *testing.T) {
	for _, tt := range []struct {
		how   string
		mount func(*testing.T) string
	}{
		{"reflink", mountXFS},
		{"copy", func(t *testing.T) string { return mountExt4(t, "100M") }},
	} {
		t.Run(tt.how, func(t *testing.T) {
			root := tt.mount(t)
			addDisk(t, root, "disk-1", 5*mib+123)
			var notes bytes.Buffer
			m, err := local.Open(root, &notes)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			cid, err := m.SnapshotDisk("disk-1", local.Object{"deployment": json.RawMessage(`"d&p"`)})
			if err != nil {
				t.Fatal(err)
			}
			disk := filepath.Join(root, "disks", "disk-1.img")
			snapshot := filepath.Join(root, "snapshots", cid+".img")
			wantNames(t, filepath.Dir(snapshot), cid+".img", cid+".json")
			if !same(t, disk, snapshot) {
				t.Error("the snapshot differs from the disk")
			}
			if !strings.HasPrefix(notes.String(), fmt.Sprintf("snapshot '%s' of disk 'disk-1' created by %s in ", cid, tt.how)) {
				t.Errorf("noted %q", notes.String())
			}
			checkSidecar(t, filepath.Join(root, "snapshots", cid+".json"), tt.how, began)
			if used := blocks(t, snapshot); used > 6*mib {
				t.Errorf("the holes were filled: it uses %d bytes", used)
			}
			before, _ := os.ReadFile(snapshot)
			if err := os.WriteFile(disk, []byte("changed"), 0o600); err != nil {
				t.Fatal(err)
			}
			if after, _ := os.ReadFile(snapshot); !bytes.Equal(before, after) {
				t.Error("the snapshot changed with the disk")
			}
		})
	}
}

func checkSidecar(t *testing.T, path, how string, began time.Time) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse(time.RFC3339Nano, got["created_at"].(string))
	if err != nil || at.Before(began) || at.After(time.Now()) {
		t.Errorf("created_at is %v, %v", got["created_at"], err)
	}
	delete(got, "created_at")
	want := map[string]any{
		"disk_cid": "disk-1", "method": how, "size": float64(70*mib + 123),
		"metadata": map[string]any{"deployment": "d&p"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
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

func TestAnImageOfHolesAndAnEmptyOneCanBeCopied(t *testing.T) {
	root := mountExt4(t, "20M")
	m := open(t, root)
	for _, size := range []int64{0, 1, 1 << 30} {
		addDisk(t, root, "d", 0)
		disk := filepath.Join(root, "disks", "d.img")
		if err := os.Truncate(disk, size); err != nil {
			t.Fatal(err)
		}
		cid, err := m.SnapshotDisk("d", nil)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(root, "snapshots", cid+".img"))
		if err != nil || info.Size() != size {
			t.Errorf("got %v, %v; want %d bytes", info, err, size)
		}
	}
}

func TestAFullFilesystemIsNoDiskSpaceAndLeavesNothing(t *testing.T) {
	root := mountExt4(t, "20M")
	addDisk(t, root, "disk-1", 10*mib)
	m := open(t, root)
	_, err := m.SnapshotDisk("disk-1", nil)
	if !errors.Is(err, cpi.NoDiskSpace) {
		t.Fatalf("got %v", err)
	}
	wantNames(t, filepath.Join(root, "snapshots"))
	if err := os.Truncate(filepath.Join(root, "disks", "disk-1.img"), 2*mib); err != nil {
		t.Fatal(err)
	}
	if _, err := m.SnapshotDisk("disk-1", nil); err != nil {
		t.Errorf("the space was not given back: %v", err)
	}
}

func TestASnapshotIsDeletedOnce(t *testing.T) {
	root := t.TempDir()
	addDisk(t, root, "d", 1)
	m := open(t, root)
	if err := m.DeleteSnapshot("snap-1"); !errors.Is(err, cpi.CloudError) {
		t.Errorf("without any snapshot: %v", err)
	}
	cid, err := m.SnapshotDisk("d", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.DeleteSnapshot(cid); err != nil {
		t.Error(err)
	}
	wantNames(t, filepath.Join(root, "snapshots"))
	if err := m.DeleteSnapshot(cid); !errors.Is(err, cpi.CloudError) || !strings.Contains(err.Error(), cid) {
		t.Errorf("deleted again: %v", err)
	}
}

func TestARootThatIsNoDirectoryIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{"", "relative", file, file + "/below", filepath.Join(t.TempDir(), "missing")} {
		if _, err := local.Open(root, io.Discard); !errors.Is(err, cpi.CpiError) {
			t.Errorf("%q: got %v", root, err)
		}
	}
}

func TestCallsAtATimeDoNotDisturbEachOther(t *testing.T) {
	root := mountXFS(t)
	addDisk(t, root, "d", 2*mib)
	var calls sync.WaitGroup
	kept := make([]string, 8)
	for i := range kept {
		calls.Go(func() {
			m := open(t, root)
			for round := range 5 {
				cid, err := m.SnapshotDisk("d", nil)
				if err != nil {
					t.Error(err)
					return
				}
				key := fmt.Sprintf("%d-%d", i, round)
				if err := m.SetDiskMetadata("d", local.Object{key: json.RawMessage("1")}); err != nil {
					t.Error(err)
				}
				disk, err := m.CreateDisk(1, nil, "")
				if err := errors.Join(err, m.DeleteDisk(disk)); err != nil {
					t.Error(err)
				}
				if round < 4 {
					if err := m.DeleteSnapshot(cid); err != nil {
						t.Error(err)
					}
					continue
				}
				kept[i] = cid
			}
		})
	}
	calls.Wait()
	var want []string
	for _, cid := range kept {
		want = append(want, cid+".img", cid+".json")
		if !same(t, filepath.Join(root, "disks", "d.img"), filepath.Join(root, "snapshots", cid+".img")) {
			t.Errorf("%s differs from the disk", cid)
		}
	}
	wantNames(t, filepath.Join(root, "snapshots"), want...)
	wantNames(t, filepath.Join(root, "disks"), "d.img", "d.json")
	text, err := os.ReadFile(filepath.Join(root, "disks", "d.json"))
	if n := strings.Count(string(text), `": 1`); n != 40 || err != nil {
		t.Errorf("%d of 40 keys were kept, %v", n, err)
	}
}
