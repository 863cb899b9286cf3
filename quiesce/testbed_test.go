package quiesce_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quiesced/quiesced/quiesce"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Println("these tests need root: they mount filesystems")
		os.Exit(1)
	}
	if len(os.Args) == 4 && os.Args[1] == "mapper" {
		os.Exit(playMapper(os.Args[2], os.Args[3]))
	}
	os.Exit(m.Run())
}

// sizes are the smallest that each mkfs takes without complaint.
var sizes = map[string]int64{"ext4": 16 << 20, "xfs": loopfs.MinXFS, "btrfs": 128 << 20}

// makeFS makes and mounts a filesystem for as long as the test runs.
func makeFS(t testing.TB, dir, name, fstype string) *loopfs.FS {
	t.Helper()
	return makeSized(t, dir, name, fstype, sizes[fstype])
}

func makeSized(t testing.TB, dir, name, fstype string, size int64) *loopfs.FS {
	t.Helper()
	f, err := loopfs.Make(dir, name, fstype, size)
	must(t, err)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// mount mounts at a new directory, by mount(8)'s arguments, for as long as the
// test runs.
func mount(t testing.TB, at string, args ...string) string {
	t.Helper()
	must(t, os.MkdirAll(at, 0o755))
	run(t, "mount", append(args, at)...)
	t.Cleanup(func() {
		if err := loopfs.Unmount(at); err != nil {
			t.Error(err)
		}
	})
	return at
}

func bind(t testing.TB, what, at string) string {
	t.Helper()
	return mount(t, at, "--bind", what)
}

// run runs a command and returns what it printed.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func survey(t testing.TB) *quiesce.Survey {
	t.Helper()
	s, err := quiesce.System{}.Survey()
	must(t, err)
	return s
}

// disks are disk-0, disk-1, …, with one mount each.
func disks(mounts ...string) []quiesce.Disk {
	var all []quiesce.Disk
	for i, m := range mounts {
		all = append(all, quiesce.Disk{CID: fmt.Sprintf("disk-%d", i), Mounts: []string{m}})
	}
	return all
}

// find surveys one disk for each mount.
func find(t testing.TB, mounts ...string) []quiesce.Filesystem {
	t.Helper()
	return contents(t, disks(mounts...)...).Filesystems
}

func contents(t testing.TB, disks ...quiesce.Disk) *quiesce.Contents {
	t.Helper()
	found, err := survey(t).Filesystems(disks)
	must(t, err)
	return found
}

// source is the block device under a mount point, as findmnt(8) names it.
func source(t testing.TB, at string) string {
	t.Helper()
	return filepath.Base(run(t, "findmnt", "-nvo", "SOURCE", at))
}

// device is a mount point's major:minor, as findmnt(8) has it.
func device(t testing.TB, at string) string {
	t.Helper()
	return run(t, "findmnt", "-no", "MAJ:MIN", at)
}
