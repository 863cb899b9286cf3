package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent/wire"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// nested gives the world's disk a filesystem in an image on it, which nobody
// configured, and which waits for the disk where it writes.
func (w *world) nested() string {
	w.t.Helper()
	image, err := loopfs.Make(w.store, "nested", "ext4", 8<<20)
	w.must(err)
	w.t.Cleanup(func() { w.must(image.Close()) })
	stop, err := loopfs.ThawAfter(image.Mount, safetyThaw)
	w.must(err)
	w.t.Cleanup(stop)
	w.t.Cleanup(w.end)
	return image.Mount
}

// output runs a command and returns what it printed.
func (w *world) output(name string, args ...string) string {
	w.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// byDevice configures the world's disk by its device in place of its mount.
func byDevice(w *world) {
	w.t.Helper()
	link := filepath.Join(w.dir, "device")
	w.must(os.Symlink(w.output("findmnt", "-no", "SOURCE", w.store), link))
	text, err := os.ReadFile(w.config)
	w.must(err)
	w.must(os.WriteFile(w.config, bytes.Replace(text, []byte("mounts: ["+w.store+"]"), []byte("device: "+link), 1), 0o600))
}

func TestWhatLiesBesideTheConfiguredMountIsShownAndFrozenToo(t *testing.T) {
	for name, configure := range map[string]func(*world){"by its mount": func(*world) {}, "by its device": byDevice} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.script(answered("snap-1"))
			image := w.nested()
			configure(w)
			both := []string{image, w.store} // top down
			t.Run("check-config", func(t *testing.T) {
				w.mustSay(w.run("check-config"), exitOK, image, w.store, "is good")
				var found struct{ Filesystems []wire.Filesystem }
				w.must(json.Unmarshal([]byte(w.run("check-config", "--json").out), &found))
				var got []string
				for _, f := range found.Filesystems {
					got = append(got, f.Mount)
				}
				if diff := cmp.Diff(both, got); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			})
			w.start()
			t.Run("dry run", func(t *testing.T) {
				var plan wire.Plan
				w.must(json.Unmarshal([]byte(w.run("take-snapshot", "--dry-run", "--json").out), &plan))
				plan.Actions = slices.DeleteFunc(plan.Actions, func(a wire.Action) bool { return a.Kind != "freeze" })
				if len(plan.Actions) != 2 || plan.Actions[0].Target != image || plan.Actions[1].Target != w.store {
					t.Errorf("got %+v", plan.Actions)
				}
			})
			r, report := w.take("--level", "freeze")
			w.mustSay(r, exitOK)
			if !report.Clean || len(report.Thaws) != 2 {
				t.Errorf("report is %+v", report)
			}
			w.mustBeGoing()
		})
	}
}

func TestNotesOnTheDiskAreShown(t *testing.T) {
	w := newWorld(t)
	w.script(answered("snap-1"))
	merged := filepath.Join(w.dir, "merged")
	for _, dir := range []string{"lower", "upper", "work"} {
		w.must(os.Mkdir(filepath.Join(w.store, dir), 0o700))
	}
	w.must(os.Mkdir(merged, 0o700))
	w.output("mount", "-t", "overlay", "-o", "lowerdir="+w.store+"/lower,upperdir="+w.store+"/upper,workdir="+w.store+"/work", "overlay", merged)
	t.Cleanup(func() { w.must(loopfs.Unmount(merged)) })
	w.start()
	note := w.store + " is what the overlay at " + merged + " writes to"
	for _, verb := range [][]string{{"check-config"}, {"check-config", "--json"}, {"take-snapshot", "--dry-run"}, {"take-snapshot", "--dry-run", "--json"}} {
		w.mustSay(w.run(verb...), exitOK, note)
	}
}
