package local_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/cpi/local"
)

// asCPI makes the test binary a CPI of this package.
const asCPI = "LOCAL_TEST_CPI"

func TestMain(m *testing.M) {
	if os.Getenv(asCPI) != "" {
		if err := cpi.Serve(os.Stdin, os.Stdout, local.Handlers(os.Stderr)); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestACPIKilledInTheMiddleLeavesNoSnapshot(t *testing.T) {
	root := mountExt4(t, "600M")
	addDisk(t, root, "d", 200*mib)
	snapshots := filepath.Join(root, "snapshots")
	if err := os.Mkdir(snapshots, 0o700); err != nil {
		t.Fatal(err)
	}
	caught := false
	for try := 0; try < 20 && !caught; try++ {
		killInTheMiddle(t, root, snapshots)
		left := names(t, snapshots)
		caught = len(left) > 0 && strings.HasPrefix(left[0], ".tmp-") && !slices.ContainsFunc(left, visible)
		if !caught {
			removeAll(t, snapshots) // it was too late, or too early
		}
	}
	if !caught {
		t.Fatal("no call was caught in the middle")
	}
	cid, err := open(t, root).SnapshotDisk("d", nil)
	if err != nil {
		t.Fatal(err)
	}
	wantNames(t, snapshots, cid+".img", cid+".json")
}

func visible(name string) bool { return name[0] != '.' }

// killInTheMiddle kills a call as soon as it has begun to write.
func killInTheMiddle(t *testing.T, root, snapshots string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asCPI+"=yes")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"method":"snapshot_disk","arguments":["d",{}],"context":{"root":%q}}`, root))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && !writing(snapshots); {
		time.Sleep(time.Millisecond)
	}
	cmd.Process.Kill()
	cmd.Wait()
}

func writing(dir string) bool {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && info.Size() > 0 {
			return true
		}
	}
	return false
}

func removeAll(t *testing.T, dir string) {
	t.Helper()
	for _, name := range names(t, dir) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func touch(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestWhatACrashLeftIsSweptUnlessItIsInUse(t *testing.T) {
	root := t.TempDir()
	addDisk(t, root, "d", 1)
	m := open(t, root)
	first, err := m.SnapshotDisk("d", nil)
	if err != nil {
		t.Fatal(err)
	}
	snapshots := filepath.Join(root, "snapshots")
	// The sidecar got its name and the image did not.
	touch(t, filepath.Join(snapshots, ".tmp-snap-dead.img"))
	touch(t, filepath.Join(snapshots, "snap-dead.json"))
	// The same of a process that is at work.
	busy := touch(t, filepath.Join(snapshots, ".tmp-snap-busy.img"))
	if err := unix.Flock(int(busy.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	touch(t, filepath.Join(snapshots, "snap-busy.json"))
	// An operator's own file.
	touch(t, filepath.Join(snapshots, "notes.json"))

	second, err := m.SnapshotDisk("d", nil)
	if err != nil {
		t.Fatal(err)
	}
	wantNames(t, snapshots, first+".img", first+".json", second+".img", second+".json",
		".tmp-snap-busy.img", "snap-busy.json", "notes.json")
}

func TestADeletionThatWasCutShortIsRepeated(t *testing.T) {
	root := t.TempDir()
	addDisk(t, root, "d", 1)
	m := open(t, root)
	cid, err := m.SnapshotDisk("d", nil)
	if err != nil {
		t.Fatal(err)
	}
	snapshots := filepath.Join(root, "snapshots")
	if err := os.Remove(filepath.Join(snapshots, cid+".json")); err != nil {
		t.Fatal(err)
	}
	if err := m.DeleteSnapshot(cid); err != nil {
		t.Fatal(err)
	}
	wantNames(t, snapshots)
}
