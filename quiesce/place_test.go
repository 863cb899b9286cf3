package quiesce_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/quiesce"
)

// The table alone tells which mount the kernel shows at a path.
func TestMountSeenAtAPathIsTheKernels(t *testing.T) {
	dir := t.TempDir()
	tmpfs := func(at string) string { return mount(t, dir+at, "-t", "tmpfs", "none") }
	tmpfs("/plain/inner")
	tmpfs("/stacked")
	run(t, "mount", "-t", "tmpfs", "none", dir+"/stacked")
	t.Cleanup(func() { run(t, "umount", dir+"/stacked") })
	tmpfs("/parent")
	tmpfs("/parent/hidden")
	run(t, "mount", "-t", "tmpfs", "none", dir+"/parent")
	t.Cleanup(func() { run(t, "umount", dir+"/parent") })
	must(t, os.MkdirAll(dir+"/parent/hidden/below", 0o755))
	tmpfs("/source/sub")
	run(t, "mount", "--rbind", dir+"/source", mount(t, dir+"/tree", "-t", "tmpfs", "none"))
	t.Cleanup(func() { run(t, "umount", "-R", dir+"/tree") })
	run(t, "mount", "--move", tmpfs("/before"), dir+"/source")
	t.Cleanup(func() { run(t, "mount", "--move", dir+"/source", dir+"/before") })
	s := survey(t)
	for _, path := range []string{
		"/", "/proc", "/sys", "/dev", "/proc/self", dir, dir + "/plain", dir + "/plain/inner", dir + "/stacked",
		dir + "/parent", dir + "/parent/hidden", dir + "/parent/hidden/below", dir + "/tree", dir + "/tree/sub", dir + "/source", dir + "/before",
	} {
		var st unix.Statx_t
		must(t, unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st))
		if got := s.MountAt(path); got != st.Mnt_id {
			t.Errorf("%s: got mount %d, the kernel shows %d", path, got, st.Mnt_id)
		}
	}
}

// deadFUSE mounts a FUSE filesystem whose server never answers.
func deadFUSE(t testing.TB, at, fstype string) string {
	t.Helper()
	must(t, os.MkdirAll(at, 0o755))
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Mount("dead", at, fstype, 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)))
	t.Cleanup(func() {
		must(t, unix.Unmount(at, unix.MNT_FORCE|unix.MNT_DETACH))
		must(t, unix.Close(fd)) // frees whoever waits for an answer
	})
	return at
}

// soon fails a test in which something waits for a server that is dead.
func soon[T any](t testing.TB, do func() (T, error)) (T, error) {
	t.Helper()
	type answer struct {
		value T
		err   error
	}
	ended := make(chan answer, 1)
	go func() {
		value, err := do()
		ended <- answer{value, err}
	}()
	select {
	case a := <-ended:
		return a.value, a.err
	case <-time.After(10 * time.Second):
		t.Fatal("the survey waits for a server that never answers")
		panic("not reached")
	}
}

func TestDeadFUSEServerDoesNotHoldUpTheSurvey(t *testing.T) {
	dir := t.TempDir()
	store := makeSized(t, dir, "store", "ext4", 64<<20)
	makeFS(t, store.Mount, "image", "ext4")
	for _, at := range []string{dir + "/beside", store.Mount + "/on-it"} {
		deadFUSE(t, at, "fuse")
	}
	over := link(t, dir+"/beside", dir+"/link")
	for name, c := range map[string]struct{ path, reason string }{
		"in the table, and nothing leads there": {store.Mount, ""},
		"at the configured path":                {dir + "/beside", "the type"},
		"behind a link":                         {over, "the type"},
		"above the configured path":             {dir + "/beside/store", "it lies in a mount of type fuse, which is never opened"},
		"above the configured path, by a link":  {over + "/store", "it lies in a mount of type fuse, which is never opened"},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := soon(t, func() (*quiesce.Contents, error) { return survey(t).Filesystems(disks(c.path)) })
			switch c.reason {
			case "":
				if err != nil || len(found.Filesystems) != 2 {
					t.Errorf("got %+v, %v", found, err)
				}
			case "the type":
				if err != nil || found.Filesystems[0].Type != "fuse" || found.Filesystems[0].Writable() == nil || found.Filesystems[0].Freezable() == nil {
					t.Errorf("got %+v, %v", found, err)
				}
			default:
				want := &quiesce.MountError{Disk: "disk-0", Mount: c.path, Reason: c.reason}
				if diff := cmp.Diff(error(want), err); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			}
		})
	}
	for name, c := range map[string]quiesce.Disk{
		"a device in it":         {CID: "d", Device: dir + "/beside/vdb"},
		"a device that it hides": {CID: "d", Device: dir + "/beside"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := soon(t, func() (*quiesce.Contents, error) { return survey(t).Filesystems([]quiesce.Disk{c}) })
			if err == nil || !strings.HasPrefix(err.Error(), "cannot use device") {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("what the daemon needs lies in it, and not on the disk", func(t *testing.T) {
		_, err := soon(t, func() (any, error) {
			s := survey(t)
			return nil, s.Independent(find(t, store.Mount), []quiesce.Dependency{{Name: "state_dir", Path: store.Mount + "/on-it/state"}})
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// What is mounted below a dead server is not reached through it.
func TestFilesystemBelowADeadFUSEServerIsReachedElsewhere(t *testing.T) {
	dir := t.TempDir()
	loop := partitioned(t, dir, 2)
	ours := mount(t, dir+"/1", loop+"p1")
	mount(t, dir+"/parent/at", loop+"p2")
	deadFUSE(t, dir+"/parent", "fuse")
	seen := mount(t, dir+"/seen", loop+"p2")
	found, err := soon(t, func() (*quiesce.Contents, error) { return survey(t).Filesystems(disks(ours)) })
	must(t, err)
	if diff := cmp.Diff([]brief{{ours, true, "disk-0"}, {seen, false, "disk-0"}}, briefly(found)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
