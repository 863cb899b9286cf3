package writeout_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/quiesce/loopfs"
	"github.com/quiesced/quiesced/quiesce/writeout"
)

const childEnv = "WRITEOUT_TEST_CHILD"

// TestMain is the child as well.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if os.Args[1] == "hang" {
			time.Sleep(time.Minute)
		}
		os.Exit(writeout.Main(os.Args[2:], os.Stdout))
	}
	os.Exit(m.Run())
}

func child(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = []string{childEnv + "=1", "GORACE=atexit_sleep_ms=0"}
	return cmd
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newFS(t *testing.T, kind string) *loopfs.FS {
	t.Helper()
	f, err := loopfs.Make(t.TempDir(), "store", kind, loopfs.MinXFS)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

const size = 24 << 20

// dirtied makes a file whose pages are dirty, and returns it open.
func dirtied(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	_, err = f.Write(bytes.Repeat([]byte("dirty"), size/5+1)[:size])
	must(t, err)
	return f
}

// dirty is how much of a file is, as the kernel says.
func dirty(t *testing.T, f *os.File) int64 {
	t.Helper()
	n, err := writeout.DirtyOf(int(f.Fd()), size)
	must(t, err)
	return n
}

func TestWhatIsDirtyIsWrittenOut(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			fs := newFS(t, kind)
			must(t, os.MkdirAll(fs.Mount+"/a/b", 0o755))
			for name, file := range map[string]func() *os.File{
				"a file that is open": func() *os.File { return dirtied(t, fs.Mount+"/open") },
				"a file that is open and has no name any more": func() *os.File {
					f := dirtied(t, fs.Mount+"/deleted")
					must(t, os.Remove(f.Name()))
					return f
				},
				"a file that nobody has open": func() *os.File {
					must(t, dirtied(t, fs.Mount+"/a/b/closed").Close())
					return nil
				},
			} {
				t.Run(name, func(t *testing.T) {
					f := file()
					done, err := writeout.Run(t.Context(), child, 20*time.Second, []string{fs.Mount})
					must(t, err)
					if f == nil {
						f, err = os.Open(fs.Mount + "/a/b/closed")
						must(t, err)
						defer f.Close()
					}
					if left := dirty(t, f); left > 0 || done.Bytes < size/2 || done.Files == 0 {
						t.Errorf("%d bytes are dirty still, %+v", left, done)
					}
				})
			}
		})
	}
}

func TestMappedFileIsWrittenOut(t *testing.T) {
	fs := newFS(t, "ext4")
	f := dirtied(t, fs.Mount+"/mapped")
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	defer func() { must(t, unix.Munmap(mem)) }()
	must(t, f.Sync())
	must(t, f.Close())
	for i := 0; i < size; i += 4096 {
		mem[i]++
	}
	done, err := writeout.Run(t.Context(), child, 20*time.Second, []string{fs.Mount})
	must(t, err)
	f, err = os.Open(fs.Mount + "/mapped")
	must(t, err)
	defer f.Close()
	if left := dirty(t, f); left > 0 || done.Bytes < size/2 {
		t.Errorf("%d bytes are dirty still, %+v", left, done)
	}
}

func TestSubvolumeOfAnotherDeviceNumberIsOfTheSameFilesystem(t *testing.T) {
	fs := newFS(t, "btrfs")
	out, err := exec.Command("btrfs", "subvolume", "create", fs.Mount+"/sub").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f := dirtied(t, fs.Mount+"/sub/open")
	must(t, func() error {
		_, err := writeout.Run(t.Context(), child, 20*time.Second, []string{fs.Mount})
		return err
	}())
	if left := dirty(t, f); left > 0 {
		t.Errorf("%d bytes are dirty still", left)
	}
}

func TestOtherFilesystemsAreLeftAlone(t *testing.T) {
	fs, other := newFS(t, "ext4"), newFS(t, "xfs")
	ours, theirs := dirtied(t, fs.Mount+"/open"), dirtied(t, other.Mount+"/open")
	_, err := writeout.Run(t.Context(), child, 20*time.Second, []string{fs.Mount})
	must(t, err)
	if dirty(t, ours) != 0 || dirty(t, theirs) == 0 {
		t.Errorf("%d bytes of ours are dirty, %d of the other", dirty(t, ours), dirty(t, theirs))
	}
}

// Without cachestat (before Linux 6.5) every chunk of every file is tried.
func TestKernelThatDoesNotTellWhatIsDirty(t *testing.T) {
	fs := newFS(t, "ext4")
	f := dirtied(t, fs.Mount+"/open")
	if !writeout.WriteBlindly(int(f.Fd()), size) {
		t.Error("it did not come to the end")
	}
	if left := dirty(t, f); left > 0 {
		t.Errorf("%d bytes are dirty still", left)
	}
}

func TestTheTimeIsLimited(t *testing.T) {
	fs := newFS(t, "ext4")
	dirtied(t, fs.Mount+"/open")
	done, err := writeout.Run(t.Context(), child, time.Millisecond, []string{fs.Mount})
	must(t, err)
	if done.Bytes >= size {
		t.Errorf("%+v within a millisecond", done)
	}
}

func TestChildThatHangsIsEnded(t *testing.T) {
	fs := newFS(t, "ext4")
	dirtied(t, fs.Mount+"/open")
	hang := func(...string) *exec.Cmd { return child("hang") }
	_, err := writeout.Run(t.Context(), hang, 100*time.Millisecond, []string{fs.Mount})
	if err == nil || !strings.Contains(err.Error(), "cannot write out ahead") {
		t.Errorf("got %v", err)
	}
}

func TestChildThatFailsIsTold(t *testing.T) {
	fs := newFS(t, "ext4")
	dirtied(t, fs.Mount+"/open")
	for name, command := range map[string]func(...string) *exec.Cmd{
		"says nothing":   func(...string) *exec.Cmd { return exec.Command("true") },
		"is not there":   func(...string) *exec.Cmd { return exec.Command("/nowhere") },
		"does not agree": func(...string) *exec.Cmd { return child("write-out", "soon", "/") },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if _, err := writeout.Run(ctx, command, time.Second, []string{fs.Mount}); err == nil {
				t.Error("no error")
			}
		})
	}
}

func FuzzMountTable(f *testing.F) {
	own, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(own))
	f.Add("1 2 3:4 / / rw - ext4 /dev/x rw\n\n5\n6 7")
	f.Fuzz(func(t *testing.T, table string) {
		for id, sb := range writeout.ParseMounts(table) {
			if !strings.Contains(table, fmt.Sprint(id)) && id != 0 || !strings.Contains(table, sb) {
				t.Errorf("mount %d of %q is not in the table", id, sb)
			}
		}
	})
}

func TestMountIDsLeadToTheirSuperblocks(t *testing.T) {
	table, err := filepath.Glob("/proc/self/mountinfo")
	must(t, err)
	text, err := os.ReadFile(table[0])
	must(t, err)
	var st unix.Statx_t
	must(t, unix.Statx(unix.AT_FDCWD, "/proc", 0, unix.STATX_MNT_ID, &st))
	if got, want := writeout.ParseMounts(string(text))[st.Mnt_id], fmt.Sprintf("%d:%d", st.Dev_major, st.Dev_minor); got != want {
		t.Errorf("/proc is on %q, want %q", got, want)
	}
}
