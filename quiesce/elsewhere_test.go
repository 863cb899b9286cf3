package quiesce_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/quiesce"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// inNamespace mounts a device at a directory in a mount namespace of its own, in
// which a process stays for as long as the test runs. It returns the path that
// leads there.
func inNamespace(t testing.TB, device, at string, options ...string) string {
	t.Helper()
	must(t, os.MkdirAll(at, 0o755))
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", `mount "$@" && echo up && read end`, "sh")
	cmd.Args = append(append(cmd.Args, options...), device, at)
	return inProcess(t, cmd, at)
}

// inProcess starts a process that says when it has mounted something at a
// directory, and ends it with the test.
func inProcess(t testing.TB, cmd *exec.Cmd, at string) string {
	t.Helper()
	end, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		must(t, end.Close())
		_ = cmd.Wait()
	})
	if n, err := out.Read(make([]byte, 3)); n != 3 {
		t.Fatalf("%v does not mount: %v", cmd, err)
	}
	return fmt.Sprintf("/proc/%d/root%s", cmd.Process.Pid, at)
}

// inChroot is inNamespace for a process that sees nothing of ours but the root
// filesystem.
func inChroot(t testing.TB, device, at string) string {
	t.Helper()
	root := t.TempDir()
	must(t, os.MkdirAll(at, 0o755))
	script := `mount --bind / "$3" && mount "$1" "$3$2" && exec chroot "$3" sh -c 'echo up && read end'`
	return inProcess(t, exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", device, at, root), at)
}

func TestFilesystemInAnotherMountNamespaceIsFoundAndFrozen(t *testing.T) {
	freezer := newFreezer(t)
	partition := func(_ *testing.T, loop, _ string) string { return loop + "p2" }
	image := func(t *testing.T, _, ours string) string {
		device := attach(t, ours+"/nested.img", 4<<20)
		run(t, "mkfs.ext4", "-q", "-F", device)
		return device
	}
	sees := func(t testing.TB, device, at string) string { return inNamespace(t, device, at) }
	for name, c := range map[string]struct {
		device func(t *testing.T, loop, ours string) string
		mount  func(t testing.TB, device, at string) string
		want   []int // ranks, theirs first
	}{
		"a partition":                           {partition, sees, []int{0, 0}},
		"a partition, in a chroot":              {partition, inChroot, []int{0, 0}},
		"an image on a filesystem of ours":      {image, sees, []int{0, 1}},
		"an image of ours that is unseen there": {image, inChroot, []int{0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			loop := partitioned(t, dir, 3)
			ours := mount(t, dir+"/1", loop+"p1")
			theirs := c.mount(t, c.device(t, loop, ours), dir+"/2")
			got := contents(t, quiesce.Disk{CID: "d", Mounts: []string{ours}})
			want := []ranked{{theirs, c.want[0]}, {ours, c.want[1]}}
			byPath := cmpopts.SortSlices(func(a, b ranked) bool { return a.Path < b.Path })
			if diff := cmp.Diff(want, ranks(got.Filesystems), byPath); diff != "" || len(got.Notes) > 0 {
				t.Fatalf("notes %q, -want +got:\n%s", got.Notes, diff)
			}
			freezeAndThaw(t, freezer, got.Filesystems)
		})
	}
}

// whileFrozen does something while a filesystem is frozen by fsfreeze(8).
func whileFrozen(t testing.TB, at string, do func()) {
	t.Helper()
	stop, err := loopfs.ThawAfter(at, 10*time.Second)
	must(t, err)
	defer stop()
	run(t, "fsfreeze", "-f", at)
	defer run(t, "fsfreeze", "-u", at)
	do()
}

// freezeAndThaw sees filesystems frozen, and thawed by the guard.
func freezeAndThaw(t testing.TB, freezer *quiesce.Freezer, fs []quiesce.Filesystem) {
	t.Helper()
	for _, f := range fs {
		stop, err := loopfs.ThawAfter(f.Path, 8*time.Second)
		must(t, err)
		t.Cleanup(stop)
	}
	g, err := freezer.Start(t.Context(), "r", fs, 4*time.Second)
	must(t, err)
	err = g.Freeze(t.Context())
	result, thawErr := g.Thaw(t.Context())
	must(t, err)
	must(t, thawErr)
	if !result.Unbroken() {
		t.Errorf("the freeze was broken: %+v", result)
	}
}

func TestMountThatIsCoveredHereIsReachedThroughAnotherNamespace(t *testing.T) {
	dir := t.TempDir()
	loop := partitioned(t, dir, 2)
	ours := mount(t, dir+"/1", loop+"p1")
	theirs := inNamespace(t, loop+"p2", dir+"/2")
	mount(t, dir+"/covered/at", loop+"p2")
	cover := func() func() {
		run(t, "mount", "-t", "tmpfs", "none", dir+"/covered")
		return func() { run(t, "umount", dir+"/covered") }
	}
	defer cover()()
	want := []brief{{theirs, false, "disk-0"}, {ours, true, "disk-0"}}
	if diff := cmp.Diff(want, briefly(contents(t, disks(ours)...))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestMountThatNothingLeadsToIsRefused(t *testing.T) {
	dir := t.TempDir()
	loop := partitioned(t, dir, 2)
	ours := mount(t, dir+"/1", loop+"p1")
	hidden := mount(t, dir+"/covered/at", loop+"p2")
	run(t, "mount", "-t", "tmpfs", "none", dir+"/covered")
	defer run(t, "umount", dir+"/covered")
	_, err := survey(t).Filesystems(disks(ours))
	want := fmt.Sprintf("cannot reach what lies on disk \"disk-0\": no mount point of ext4 on %sp2, such as %q, leads to it", loop, hidden)
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestDeviceThatSomebodyUnknownUsesIsRefused(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct{ device, held string }{
		"a partition beside": {partitioned(t, dir, 2), "p2"},
		"a whole disk":       {attach(t, dir+"/whole.img", 16<<20), ""},
	} {
		t.Run(name, func(t *testing.T) {
			held, err := os.OpenFile(c.device+c.held, os.O_RDONLY|unix.O_EXCL, 0)
			must(t, err)
			defer held.Close()
			_, err = survey(t).Filesystems([]quiesce.Disk{{CID: "d", Device: c.device}})
			want := "cannot tell what lies on disk \"d\": device " + filepath.Base(c.device) + c.held + " is in use, and no mount table, array or swap shows by whom"
			if err == nil || err.Error() != want {
				t.Errorf("got %v\nwant %s", err, want)
			}
		})
	}
}
