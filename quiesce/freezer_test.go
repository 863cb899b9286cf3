package quiesce_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce"
	"github.com/quiesced/quiesced/quiesce/guard"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// newFreezer builds the guard. Its state files lie in a directory on a tmpfs.
func newFreezer(t testing.TB) *quiesce.Freezer {
	t.Helper()
	dir := mount(t, filepath.Join(t.TempDir(), "run"), "-t", "tmpfs", "none")
	path := filepath.Join(dir, "quiesced-guard")
	build := exec.Command("go", "build", "-o", path, "../cmd/quiesced-guard")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the guard: %v\n%s", err, out)
	}
	binary, err := guard.OpenBinary(path)
	must(t, err)
	t.Cleanup(func() { must(t, binary.Close()) })
	return &quiesce.Freezer{Binary: binary, Dir: dir}
}

func TestFreezerStartsOnWhatTheSurveyFound(t *testing.T) {
	freezer := newFreezer(t)
	dir := t.TempDir()
	top := makeFS(t, dir, "top", "btrfs")
	run(t, "btrfs", "-q", "subvolume", "create", top.Mount+"/a")
	sub := mount(t, dir+"/sub", "-o", "subvol=a", "/dev/"+source(t, top.Mount))
	store := makeFS(t, dir, "store", "ext4")
	bound := bind(t, store.Mount, dir+"/bound")
	for name, mounts := range map[string][]string{
		"a subvolume":              {sub},
		"a bind mount":             {bound},
		"two filesystems together": {store.Mount, top.Mount},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := freezer.Start(t.Context(), guardRun(name), find(t, mounts...), time.Second)
			must(t, err)
			err = g.Sync(t.Context())
			if _, thawErr := g.Thaw(t.Context()); err != nil || thawErr != nil {
				t.Errorf("cannot write out: %v, cannot end: %v", err, thawErr)
			}
		})
	}
}

// guardRun makes a run's id of a test's name.
func guardRun(name string) string { return strings.ReplaceAll(name, " ", "-") }

func TestFreezerRefusesAMountThatIsNotTheOneSurveyed(t *testing.T) {
	dir := t.TempDir()
	store := makeFS(t, dir, "store", "ext4")
	found := find(t, store.Mount)
	covered := find(t, bind(t, dir, dir+"/cover"))[0].Path
	run(t, "mount", "--bind", covered, store.Mount)
	defer run(t, "umount", store.Mount)
	now := find(t, store.Mount)
	freezer := &quiesce.Freezer{} // nothing is started
	_, err := freezer.Start(t.Context(), "r", found, time.Second)
	want := fmt.Sprintf("cannot use mount %q: it was mount %d and is now mount %d", store.Mount, found[0].MountID, now[0].MountID)
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

// In the order of rising ranks a stack freezes within milliseconds. In any other
// the upper filesystem, which is dirty, waits for the lower one until the guard's
// deadline.
func TestStackFreezesInTheOrderOfItsRanks(t *testing.T) {
	freezer := newFreezer(t)
	bottom := makeSized(t, t.TempDir(), "bottom", "ext4", 160<<20)
	middle := makeSized(t, bottom.Mount, "middle", "ext4", 64<<20)
	top := makeFS(t, middle.Mount, "top", "ext4")
	stack := []*loopfs.FS{bottom, middle, top}
	for _, f := range stack {
		stop, err := loopfs.ThawAfter(f.Mount, 8*time.Second)
		must(t, err)
		t.Cleanup(stop)
		must(t, os.WriteFile(f.Mount+"/dirty", make([]byte, 1<<20), 0o600))
	}
	g, err := freezer.Start(t.Context(), "stack", find(t, bottom.Mount, top.Mount, middle.Mount), 4*time.Second)
	must(t, err)
	err = g.Freeze(t.Context())
	result, thawErr := g.Thaw(t.Context())
	must(t, err)
	must(t, thawErr)
	var got []string
	for _, f := range result.Filesystems {
		got = append(got, f.Path)
	}
	want := []string{top.Mount, middle.Mount, bottom.Mount}
	if diff := cmp.Diff(want, got); diff != "" || !result.Unbroken() {
		t.Errorf("unbroken is %t, -want +got:\n%s", result.Unbroken(), diff)
	}
}

func TestRecoverFindsNothingWhereNothingWasFrozen(t *testing.T) {
	left, err := newFreezer(t).Recover(t.Context(), guard.RecoverOptions{})
	if err != nil || len(left) > 0 {
		t.Errorf("got %v, %v", left, err)
	}
}
