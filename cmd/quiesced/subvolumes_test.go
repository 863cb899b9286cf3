package main

import (
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// newWorldOfSubvolumes makes a world whose disk is a subvolume of local-cpi's, mounted as
// a filesystem of its own.
func newWorldOfSubvolumes(t *testing.T, change ...func(string) string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), cid: "disk-1", cpi: filepath.Join(binaries, "local-cpi")}
	pool, err := loopfs.Make(w.dir, "pool", "btrfs", 200<<20)
	w.must(err)
	t.Cleanup(func() { w.must(pool.Close()) })
	w.root = pool.Mount
	w.must(os.Mkdir(filepath.Join(w.root, "disks"), 0o700))
	w.output("btrfs", "subvolume", "create", filepath.Join(w.root, "disks", w.cid))
	w.store = filepath.Join(w.dir, "store")
	w.must(os.Mkdir(w.store, 0o700))
	device := w.output("findmnt", "-no", "SOURCE", w.root)
	w.output("mount", "-o", "subvol=disks/"+w.cid, device, w.store)
	t.Cleanup(func() { w.must(loopfs.Unmount(w.store)) })
	w.thawAfter(safetyThaw)
	t.Cleanup(func() { w.stopThaw() })
	t.Cleanup(w.end)
	w.configure(change...)
	return w
}

// inSnapshot is what a file holds in a snapshot.
func (w *world) inSnapshot(cid, name string) string {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.root, "snapshots", cid, name))
	w.must(err)
	return string(text)
}

// A writer makes numbers durable, each in one file and then in another: a snapshot has
// every number that was durable before it, and none in the second that is not in the
// first.
func TestSubvolumeIsSnapshottedWithoutAFreezeOfOurs(t *testing.T) {
	w := newWorldOfSubvolumes(t, releasing("  freezes_itself: true\n"))
	w.start()
	var written atomic.Int64
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- countInto(w.store, &written, stop) }()
	w.eventually("numbers are written", func() bool { return written.Load() > 2 })
	w.must(os.WriteFile(filepath.Join(w.store, "unsynced"), []byte("data"), 0o600))
	for range 3 {
		before := written.Load()
		r, report := w.take("--level", "freeze")
		w.mustSay(r, exitOK)
		if !report.Clean || report.Reached != "freeze" || len(report.Thaws) != 0 {
			t.Errorf("report is %+v", report)
		}
		cid := report.Disks[0].SnapshotCID
		first, second := w.inSnapshot(cid, "first"), w.inSnapshot(cid, "second")
		if number(first) < number(second) || number(second) < before || w.inSnapshot(cid, "unsynced") != "data" {
			t.Errorf("the snapshot has %q and %q, durable was %d", first, second, before)
		}
	}
	close(stop)
	w.must(<-ended)
	w.mustBeGoing()
}

// countInto writes numbers into two files until it is stopped.
func countInto(dir string, written *atomic.Int64, stop <-chan struct{}) error {
	for n := int64(1); ; n++ {
		for _, name := range []string{"first", "second"} {
			f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE, 0o600)
			if err != nil {
				return err
			}
			_, err = f.WriteString(strconv.FormatInt(n+1e9, 10)) // of one length
			if err == nil {
				err = f.Sync()
			}
			_ = f.Close()
			if err != nil {
				return err
			}
		}
		written.Store(n)
		select {
		case <-stop:
			return nil
		default:
		}
	}
}

func number(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n - 1e9
}

// Frozen by us, the filesystem keeps the kernel from making the snapshot. It is made
// after the thaw at the deadline, and is not called clean.
func TestSubvolumeThatIsFrozenIsSnapshottedAfterTheDeadline(t *testing.T) {
	w := newWorldOfSubvolumes(t, with("budgets: {frozen: 2s}\n"))
	w.start()
	w.must(os.WriteFile(filepath.Join(w.store, "file"), []byte("data"), 0o600))
	r, report := w.take("--level", "freeze")
	w.mustSay(r, exitFailed, "the freeze ended before the point in time was fixed (deadline)")
	if report.Clean || report.Reached != "sync" || len(report.Disks) != 1 {
		t.Fatalf("report is %+v", report)
	}
	cid := report.Disks[0].SnapshotCID
	w.mustBeGoing()
	if got := w.inSnapshot(cid, "file"); got != "data" {
		t.Errorf("the snapshot has %q", got)
	}
	entries, err := os.ReadDir(filepath.Join(w.root, "snapshots"))
	w.must(err)
	if len(entries) != 2 || entries[0].Name() != cid {
		t.Errorf("left are %v", entries)
	}
	if all := w.snapshots(); len(all) != 1 || all[0].CID != cid || all[0].Clean {
		t.Errorf("snapshots are %+v", all)
	}
}
