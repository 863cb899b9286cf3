package local_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/cpi"
)

func TestAFullFilesystemIsNoDiskSpaceAndLeavesNothing(t *testing.T) {
	smallExt4, smallBtrfs := onExt4, onBtrfs
	smallExt4.size = "20M"
	smallBtrfs.size, smallBtrfs.options = "64M", []string{"-q", "--mixed"} // one space for data and names
	for _, s := range []stage{onXFS, smallExt4, smallBtrfs} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			p := s.alone(t)
			p.addDisk("d", 4*mib)
			snapshots := []string{must(p.SnapshotDisk("d", nil))(t)}
			disks := []string{"d"}
			emptied := fill(t, p.root)
			var err error
			for err == nil {
				var cid string
				if cid, err = p.SnapshotDisk("d", nil); err == nil {
					snapshots = append(snapshots, cid)
				}
			}
			wantError(t, err, cpi.NoDiskSpace, `disk "d"`)
			for err = nil; err == nil; {
				var cid string
				if cid, err = p.CreateDisk(100, fromSnapshot(snapshots[0]), ""); err == nil {
					disks = append(disks, cid)
				}
			}
			wantError(t, err, cpi.NoDiskSpace, "100 MiB")
			p.wantOnly("snapshots", snapshots...)
			p.wantOnly("disks", disks...)
			if err := p.DeleteSnapshot(snapshots[0]); err != nil {
				t.Errorf("nothing can be deleted: %v", err)
			}
			emptied()
			must(p.SnapshotDisk("d", nil))(t)
		})
	}
}

// fill writes files until nothing fits any more, and returns what removes them.
func fill(t *testing.T, root string) (empty func()) {
	t.Helper()
	dir := filepath.Join(root, "filler")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, size := range []int{mib, 64 << 10, 4 << 10, 1 << 10} {
		for {
			n++
			err := os.WriteFile(filepath.Join(dir, fmt.Sprint(n)), slices.Repeat([]byte("x"), size), 0o600)
			if errors.Is(err, unix.ENOSPC) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		command(t, "sync", "-f", root)
	}
	return func() {
		command(t, "rm", "-r", dir)
		command(t, "sync", "-f", root)
	}
}
