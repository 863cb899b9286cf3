package fscheck_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce/fscheck"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

func TestProgramSeesCopyBesideTheOriginal(t *testing.T) {
	for fstype := range tools {
		t.Run(fstype, func(t *testing.T) {
			f := original(t, fstype)
			device, image := copied(t, f, false)
			r, err := fscheck.Check(soon(t), device)
			must(t, err)
			must(t, r.Mountable(soon(t)))
			at := t.TempDir()
			script := `cat $0/last; ls $0/d | wc -l; touch $0/new 2>&1 | grep -o Read-only; ls $1; mountpoint -q $1 || echo hidden`
			out := command(t, append(r.Beside(at, []string{f.Mount}), "sh", "-c", script, at, f.Mount)...)
			if diff := cmp.Diff("the last words\n300\nRead-only\nhidden", out); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if in := written(t, f, f.Image, image); !in[0] || in[1] {
				t.Errorf("what was written is in the original: %t, in the copy: %t", in[0], in[1])
			}
			if left, _ := os.ReadDir(at); len(left) > 0 {
				t.Errorf("it is still mounted: %v", left)
			}
		})
	}
}

// The kernel remembers the devices of a btrfs of several when other disks have their
// numbers.
func TestCopyIsMountedWhereAnotherFilesystemWasBefore(t *testing.T) {
	image := filepath.Join(memory(t), "disk.img")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, sizes["btrfs"]))
	device := attached(t, image)
	btrfsOfTwo(t, device, disk(t))
	f := original(t, "btrfs")
	command(t, "dd", "if="+f.Image, "of="+device, "bs=1M", "conv=fsync", "status=none")
	r, err := fscheck.Check(soon(t), device)
	must(t, err)
	must(t, r.Mountable(soon(t)))
}

// written writes to the original, and says in which of the images that is then: a kernel that
// took the copy for the original would have written there.
func written(t *testing.T, f *loopfs.FS, images ...string) []bool {
	t.Helper()
	word := []byte("written since then")
	must(t, os.WriteFile(f.Mount+"/after", bytes.Repeat(word, 1000), 0o644))
	command(t, "sync", "-f", f.Mount)
	var in []bool
	for _, image := range images {
		text, err := os.ReadFile(image)
		must(t, err)
		in = append(in, bytes.Contains(text, word))
	}
	return in
}

func TestWhatCannotBeMountedRunsNothing(t *testing.T) {
	r := fscheck.Result{Filesystem: "ext4", Device: disk(t)}
	if err := r.Mountable(soon(t)); err == nil || !strings.Contains(err.Error(), "cannot mount") {
		t.Errorf("got %v", err)
	}
	mark := filepath.Join(t.TempDir(), "ran")
	args := append(r.Beside(t.TempDir(), nil), "touch", mark)
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if _, ran := os.Stat(mark); err == nil || ran == nil {
		t.Errorf("it ran: %s", out)
	}
}

func TestSubvolumeIsReadInFull(t *testing.T) {
	f := original(t, "btrfs")
	command(t, "btrfs", "subvolume", "create", f.Mount+"/disk")
	must(t, os.WriteFile(f.Mount+"/disk/whole", []byte(strings.Repeat("whole", 10000)), 0o644))
	command(t, "btrfs", "subvolume", "snapshot", "-r", f.Mount+"/disk", f.Mount+"/snap")
	dir := f.Mount + "/snap"
	r, err := fscheck.Check(soon(t), dir)
	must(t, err)
	if want := (fscheck.Result{Filesystem: "btrfs", Tool: "reading every file", Device: dir, OK: true}); r != want {
		t.Errorf("got %+v", r)
	}
	at := t.TempDir()
	if out := command(t, append(r.Beside(at, nil), "ls", at)...); out != "whole" {
		t.Errorf("got %q", out)
	}
}

func TestRottenFileOfSubvolumeIsFound(t *testing.T) {
	f := original(t, "btrfs")
	word := strings.Repeat("rotten", 10000)
	must(t, os.WriteFile(f.Mount+"/rotten", []byte(word), 0o644))
	_, image := copied(t, f, true)
	damage(t, image, func(image []byte) []int { return []int{bytes.Index(image, []byte(word))} })
	at := t.TempDir()
	must(t, loopfs.Mount(image, at))
	defer func() { must(t, loopfs.Unmount(at)) }()
	r, err := fscheck.Check(soon(t), at)
	must(t, err)
	if r.OK || !strings.Contains(r.Output, "rotten: Input/output error") {
		t.Errorf("got %+v", r)
	}
}
