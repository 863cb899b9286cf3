package loopfs_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// roleEnv makes the test binary a process that mounts and freezes, and is killed.
const roleEnv = "LOOPFS_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(roleEnv); dir != "" {
		f, err := loopfs.Make(dir, "store", "ext4", 16<<20)
		if err == nil {
			err = exec.Command("fsfreeze", "-f", f.Mount).Run()
		}
		fmt.Println(err)
		select {}
	}
	os.Exit(m.Run())
}

func TestKilledProcessLeavesNothingMountedOrFrozen(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "store")
	stop, err := loopfs.ThawAfter(at, time.Minute)
	must(t, err)
	defer stop()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	said, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	if said != "<nil>\n" {
		t.Fatalf("cannot freeze: %s", said)
	}
	device := findmnt(at, "SOURCE")
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, err := os.Stat("/sys/block/" + filepath.Base(device) + "/loop")
		if os.IsNotExist(err) && findmnt(at, "FSTYPE") == "" {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("%s is still mounted: %q", device, findmnt(at, "FSTYPE"))
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// findmnt is what findmnt(8) tells of a mount point, "" where nothing is mounted.
func findmnt(at, column string) string {
	out, _ := exec.Command("findmnt", "-no", column, "--mountpoint", at).Output()
	return strings.TrimSpace(string(out))
}

func TestFilesystemIsMountedUntilItIsClosed(t *testing.T) {
	for fstype, size := range map[string]int64{"ext4": 16 << 20, "xfs": loopfs.MinXFS, "btrfs": 128 << 20} {
		t.Run(fstype, func(t *testing.T) {
			f, err := loopfs.Make(t.TempDir(), "store", fstype, size)
			must(t, err)
			if got := findmnt(f.Mount, "FSTYPE"); got != fstype {
				t.Errorf("mounted is %q, want %s", got, fstype)
			}
			device := findmnt(f.Mount, "SOURCE")
			must(t, f.Close())
			for _, path := range []string{f.Mount, f.Image, "/sys/block/" + filepath.Base(device) + "/loop"} {
				if _, err := os.Stat(path); !os.IsNotExist(err) {
					t.Errorf("%s is left: %v", path, err)
				}
			}
		})
	}
}

func TestFailuresSayWhatFailed(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/taken.img", nil, 0o600))
	for name, c := range map[string]struct {
		do   func() error
		want string
	}{
		"a type that is not known": {func() error { return makeOnly(dir, "a", "zfs", 1<<20) }, `cannot make a filesystem of type "zfs"`},
		"an image that is there":   {func() error { return makeOnly(dir, "taken", "ext4", 1<<20) }, "taken.img: file exists"},
		"an image too small":       {func() error { return makeOnly(dir, "small", "xfs", 1<<20) }, "mkfs.xfs -q -f -m reflink=1 " + dir + "/small.img: exit status"},
		"an image of nothing":      {func() error { return loopfs.Mount(dir+"/taken.img", dir+"/at") }, "mount -o loop " + dir + "/taken.img"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.do(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}

func makeOnly(dir, name, fstype string, size int64) error {
	_, err := loopfs.Make(dir, name, fstype, size)
	return err
}

func TestThawAfterThawsByItself(t *testing.T) {
	f, err := loopfs.Make(t.TempDir(), "store", "ext4", 16<<20)
	must(t, err)
	defer func() { must(t, f.Close()) }()
	stop, err := loopfs.ThawAfter(f.Mount, time.Second)
	must(t, err)
	defer stop()
	began := time.Now()
	must(t, exec.Command("fsfreeze", "-f", f.Mount).Run())
	must(t, exec.Command("touch", f.Mount+"/x").Run()) // waits for the thaw
	if took := time.Since(began); took < 500*time.Millisecond || took > 3*time.Second {
		t.Errorf("thawed after %s, want 1s", took)
	}
}

func TestThawAfterThatIsStoppedLeavesNoProcess(t *testing.T) {
	const odd = 4711 * time.Second
	stop, err := loopfs.ThawAfter(t.TempDir(), odd)
	must(t, err)
	sleeping := func() bool { return runs("sleep\x004711.0\x00") }
	for range 100 {
		if sleeping() {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if !sleeping() {
		t.Fatal("nothing waits to thaw")
	}
	stop()
	for range 100 {
		if !sleeping() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("what waits to thaw is left")
}

// runs says whether a process with a command line is there.
func runs(cmdline string) bool {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		if text, err := os.ReadFile(path); err == nil && string(text) == cmdline {
			return true
		}
	}
	return false
}
