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

func wantError(t *testing.T, err error, kind cpi.ErrorType, part string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), part) {
		t.Errorf("got %v, want %s with %q", err, kind, part)
	}
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
