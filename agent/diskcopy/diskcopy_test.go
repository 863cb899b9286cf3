package diskcopy_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/diskcopy"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

const role = "disk-copy"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == role {
		os.Exit(diskcopy.Main(os.Args[2:], os.Stdin, os.Stdout, os.Stderr))
	}
	if os.Geteuid() != 0 {
		fmt.Println("these tests need root: they mount filesystems")
		os.Exit(1)
	}
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0") // a child that waits for reports of races takes a second
	os.Exit(m.Run())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func disk(t testing.TB, size int64) agent.Place {
	t.Helper()
	f, err := loopfs.Make(t.TempDir(), "disk", "ext4", size)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return placeOf(t, f.Mount)
}

func placeOf(t testing.TB, mount string) agent.Place {
	t.Helper()
	var st unix.Statx_t
	must(t, unix.Statx(unix.AT_FDCWD, mount, 0, unix.STATX_MNT_ID, &st))
	return agent.Place{Mount: mount, MountID: st.Mnt_id}
}

func newCopies() *diskcopy.Copies {
	return &diskcopy.Copies{Command: []string{"/proc/self/exe", role}}
}

func patient(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// some is a copy with so many snapshots.
func some(n int) agent.Copy {
	c := agent.Copy{Journal: "journal-1", Instance: agent.Instance{Deployment: "cf", Job: "db", Index: 2, ID: "inst-1", AgentID: "agent-1"}}
	for i := range n {
		c.Snapshots = append(c.Snapshots, agent.Snapshot{
			CID: fmt.Sprintf("snap-%d", i), DiskCID: "disk <&> \"1\"", RunID: fmt.Sprintf("run-%d", i), State: agent.SnapshotKnown, Clean: true,
			Created: time.Unix(int64(i), 0).UTC(), Verified: &agent.Verification{Time: time.Unix(9, 0).UTC(), OK: true, How: "e2fsck"},
		})
	}
	return c
}

func TestCopyIsReadBackAsItWasWritten(t *testing.T) {
	at, c := disk(t, 32<<20), newCopies()
	if _, err := c.Read(patient(t), at); !errors.Is(err, agent.ErrNoCopy) {
		t.Errorf("before anything is written: %v", err)
	}
	for _, n := range []int{3, 0, 2000, 1} {
		want := some(n)
		if n == 0 { // a child that was killed
			must(t, os.WriteFile(filepath.Join(at.Mount, "quiesced", "snapshots.json.new"), []byte("half"), 0o600))
		}
		must(t, c.Write(patient(t), at, want, ""))
		got, err := c.Read(patient(t), at)
		must(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d snapshots, -want +got:\n%.2000s", n, diff)
		}
	}
	for path, want := range map[string]os.FileMode{"quiesced": os.ModeDir | 0o700, "quiesced/snapshots.json": 0o600} {
		info, err := os.Stat(filepath.Join(at.Mount, path))
		must(t, err)
		if info.Mode() != want {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
	}
	if entries, err := os.ReadDir(filepath.Join(at.Mount, "quiesced")); err != nil || len(entries) != 1 {
		t.Errorf("there are %v, %v", entries, err)
	}
}

func TestCopyThatMakesNoSenseIsTold(t *testing.T) {
	at, c := disk(t, 16<<20), newCopies()
	must(t, c.Write(patient(t), at, some(2), ""))
	path := filepath.Join(at.Mount, "quiesced", "snapshots.json")
	whole, err := os.ReadFile(path)
	must(t, err)
	for name, doc := range map[string]string{
		"nothing":             "",
		"the half of it":      string(whole[:len(whole)/2]),
		"another CID":         strings.Replace(string(whole), "snap-1", "snap-7", 1),
		"a newer version":     strings.Replace(string(whole), `"version":1`, `"version":2`, 1),
		"no journal":          strings.Replace(string(whole), "journal-1", "", 1),
		"something else":      "[]",
		"zeros":               strings.Repeat("\x00", len(whole)),
		"a snapshot that has": strings.Replace(string(whole), `"snapshots":[`, `"snapshots":[5,`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			must(t, os.WriteFile(path, []byte(doc), 0o600))
			if got, err := c.Read(patient(t), at); !errors.Is(err, agent.ErrBadCopy) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	must(t, c.Write(patient(t), at, some(1), "unreadable"))
	if _, err := c.Read(patient(t), at); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + ".unreadable"); err != nil {
		t.Errorf("what was there is not kept: %v", err)
	}
}

// What lies in the directory is believed, so nobody else may have put it there.
func TestCopyIsNotReadFromOrWrittenToWhatIsNotRootsAlone(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, dir string){
		"a directory of somebody else": func(t *testing.T, dir string) { must(t, os.Mkdir(dir, 0o700)); must(t, os.Chown(dir, 1000, 1000)) },
		"a directory that others write": func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.Chmod(dir, 0o770))
		},
		"a link": func(t *testing.T, dir string) { must(t, os.Symlink(t.TempDir(), dir)) },
		"a file": func(t *testing.T, dir string) { must(t, os.WriteFile(dir, nil, 0o600)) },
		"a copy that is a link": func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "snapshots.json")))
		},
		"a copy that is a pipe": func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			must(t, unix.Mkfifo(filepath.Join(dir, "snapshots.json"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			at, c := disk(t, 8<<20), newCopies()
			prepare(t, filepath.Join(at.Mount, "quiesced"))
			if got, err := c.Read(patient(t), at); err == nil || errors.Is(err, agent.ErrNoCopy) || errors.Is(err, agent.ErrBadCopy) {
				t.Errorf("read: %v, %v", got, err)
			}
			if strings.HasPrefix(name, "a copy") {
				return // it is replaced
			}
			if err := c.Write(patient(t), at, some(1), ""); err == nil || !strings.Contains(err.Error(), at.Mount) {
				t.Errorf("written: %v", err)
			}
		})
	}
}

func TestNothingIsWrittenWhereTheDiskIsNotMountedAnyMore(t *testing.T) {
	at := disk(t, 8<<20)
	at.MountID++
	if err := newCopies().Write(patient(t), at, some(1), ""); err == nil || !strings.Contains(err.Error(), "not mounted") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(at.Mount, "quiesced")); !os.IsNotExist(err) {
		t.Errorf("something was made: %v", err)
	}
}

func TestDiskThatTakesNothingKeepsTheCopyBefore(t *testing.T) {
	at, c := disk(t, 8<<20), newCopies()
	must(t, c.Write(patient(t), at, some(1), ""))
	wantOne := func(name string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s: it is written", name)
		}
		if got, err := c.Read(patient(t), at); err != nil || len(got.Snapshots) != 1 {
			t.Errorf("%s: %d snapshots, %v", name, len(got.Snapshots), err)
		}
	}
	full, err := os.Create(filepath.Join(at.Mount, "full"))
	must(t, err)
	for err == nil {
		_, err = full.Write(make([]byte, 64<<10))
	}
	must(t, full.Close())
	wantOne("full", c.Write(patient(t), at, some(1000), ""))
	must(t, unix.Mount("", at.Mount, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	wantOne("read-only", c.Write(patient(t), at, some(2), ""))
}

// Nobody of ours but the child sleeps with the filesystem, and it is known while it does.
func TestFrozenDiskHoldsUpTheChildAlone(t *testing.T) {
	at, c := disk(t, 8<<20), newCopies()
	must(t, c.Write(patient(t), at, some(1), ""))
	thawed, err := loopfs.ThawAfter(at.Mount, 30*time.Second)
	must(t, err)
	defer thawed()
	if out, err := exec.Command("fsfreeze", "-f", at.Mount).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, err := c.Read(patient(t), at); err != nil || len(got.Snapshots) != 1 {
		t.Errorf("reading needs no thaw: %v, %v", got, err)
	}
	why := errors.New("somebody wants the VM")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, why)
	defer cancel()
	if err := c.Write(ctx, at, some(2), ""); !errors.Is(err, why) || c.Stuck() == nil {
		t.Errorf("written to a frozen disk: %v, stuck: %v", err, c.Stuck())
	}
	if err := c.Write(t.Context(), at, some(2), ""); err == nil {
		t.Error("another child is sent after the first")
	}
	if out, err := exec.Command("fsfreeze", "-u", at.Mount).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for until := time.Now().Add(time.Minute); c.Stuck() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("the child does not end: %v", c.Stuck())
		}
	}
	if got, err := c.Read(patient(t), at); err != nil || len(got.Snapshots) != 1 {
		t.Errorf("what a killed child did: %v, %v", got, err)
	}
	must(t, c.Write(patient(t), at, some(3), ""))
}
