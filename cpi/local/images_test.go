package local_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/cpi/local"
)

// TestImages is what only disks that are images have to do with.
func TestImages(t *testing.T) {
	t.Parallel()
	f := onXFS.mount(t)
	for name, test := range map[string]func(*testing.T, *place){
		"an image elsewhere is a disk through a link":              testImageLink,
		"what is no image is no disk":                              testNoImage,
		"the method is noted":                                      testNotes,
		"a disk is not made smaller than its snapshot":             testSmaller,
		"a loop device of a call that was killed is answered":      testAttachKilled,
		"an operator's loop device is answered":                    testOperatorsLoop,
		"a loop device that is not the whole image is refused":     testPartialLoop,
		"an image elsewhere is swapped where it lies":              testSwapLink,
		"an image on another filesystem is not swapped, with word": testSwapElsewhere,
	} {
		t.Run(name, func(t *testing.T) { test(t, f.place(t)) })
	}
}

// link makes a disk of an image that lies elsewhere.
func (p *place) link(cid, image string) {
	p.t.Helper()
	if err := errors.Join(os.MkdirAll(p.folder("disks"), 0o700), os.Symlink(image, filepath.Join(p.folder("disks"), p.entry(cid)))); err != nil {
		p.t.Fatal(err)
	}
}

func testImageLink(t *testing.T, p *place) {
	elsewhere := filepath.Join(t.TempDir(), "store.img")
	writeImage(t, elsewhere, mib)
	p.link("mine", elsewhere)
	if has, err := p.HasDisk("mine"); !has || err != nil {
		t.Errorf("got %v, %v", has, err)
	}
	cid := must(p.SnapshotDisk("mine", nil))(t)
	if p.content("disks", "mine") != p.content("snapshots", cid) {
		t.Error("the snapshot differs from the image")
	}
	if err := errors.Join(p.SetDiskMetadata("mine", local.Object{"a": raw("1")}), p.DeleteDisk("mine")); err != nil {
		t.Error(err)
	}
	wantNames(t, p.folder("disks"))
	if _, err := os.Stat(elsewhere); err != nil {
		t.Errorf("the image was deleted: %v", err)
	}
}

func testNoImage(t *testing.T, p *place) {
	p.link("zero", "/dev/zero")
	p.link("dangling", "gone")
	dir := p.folder("disks")
	err := errors.Join(os.Mkdir(filepath.Join(dir, "dir.img"), 0o700), os.Mkdir(filepath.Join(dir, "plain"), 0o700),
		syscall.Mkfifo(filepath.Join(dir, "pipe.img"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	for disk, want := range map[string]cpi.ErrorType{
		"dir": cpi.CloudError, "pipe": cpi.CloudError, "zero": cpi.CloudError,
		"dangling": cpi.DiskNotFound, "missing": cpi.DiskNotFound, "plain": cpi.DiskNotFound,
	} {
		_, err := p.SnapshotDisk(disk, nil)
		wantError(t, err, want, disk)
		_, err = p.AttachDisk(disk)
		wantError(t, err, want, disk)
	}
	if err := p.DeleteDisk("dangling"); err != nil {
		t.Errorf("a link to nothing: %v", err)
	}
}

func testNotes(t *testing.T, p *place) {
	p.addDisk("disk-1", 1)
	var notes bytes.Buffer
	s := must(local.Open(p.root, &notes))(t)
	cid := must(s.SnapshotDisk("disk-1", nil))(t)
	if want := fmt.Sprintf("snapshot '%s' of disk 'disk-1' created by reflink in ", cid); !strings.HasPrefix(notes.String(), want) {
		t.Errorf("noted %q", notes.String())
	}
}

func testSmaller(t *testing.T, p *place) {
	p.addDisk("disk-1", 1) // of 9 MiB and one byte
	snapshot := must(p.SnapshotDisk("disk-1", nil))(t)
	_, err := p.CreateDisk(9, fromSnapshot(snapshot), "")
	wantError(t, err, cpi.CpiError, "it must have 10 MiB at least")
	must(p.CreateDisk(10, fromSnapshot(snapshot), ""))(t)
}

func testAttachKilled(t *testing.T, p *place) {
	disk := must(p.CreateDisk(8, nil, ""))(t)
	p.killed(kill{"write", 1}, "attach_disk", `["vm","`+disk+`"]`) // when it answers
	devices := func() string {
		return strings.TrimSpace(string(must(exec.Command("losetup", "-n", "-O", "NAME", "-j", p.data("disks", disk)).Output())(t)))
	}
	left := devices()
	if at := must(p.AttachDisk(disk))(t); at != left || devices() != left {
		t.Errorf("attached as %q, there were %q and are %q", at, left, devices())
	}
	if err := p.DetachDisk(disk); err != nil || devices() != "" {
		t.Errorf("%v, left is %q", err, devices())
	}
}

func testOperatorsLoop(t *testing.T, p *place) {
	disk := must(p.CreateDisk(8, nil, ""))(t)
	image := p.data("disks", disk)
	command(t, "mkfs.ext4", "-q", "-F", image)
	mounted := t.TempDir()
	command(t, "mount", "-o", "loop", image, mounted)
	out := must(exec.Command("findmnt", "-no", "SOURCE", mounted).Output())(t)
	if at := must(p.AttachDisk(disk))(t); at != strings.TrimSpace(string(out)) {
		t.Errorf("attached as %q, mounted from %q", at, out)
	}
	unmount(t, mounted)
	eventually(t, func() error { return p.DetachDisk(disk) }) // umount has let it go
}

func testPartialLoop(t *testing.T, p *place) {
	disk := must(p.CreateDisk(8, nil, ""))(t)
	for option, part := range map[string]string{"--offset=4096": "a part of it", "--sizelimit=4096": "a part of it", "--read-only": "read-only"} {
		out := must(exec.Command("losetup", "--show", "-f", option, p.data("disks", disk)).Output())(t)
		device := strings.TrimSpace(string(out))
		_, err := p.AttachDisk(disk)
		wantError(t, err, cpi.CloudError, device+" has "+part)
		wantError(t, p.DeleteDisk(disk), cpi.CloudError, "is attached ("+device+")")
		command(t, "losetup", "-d", device)
	}
	if err := p.DeleteDisk(disk); err != nil {
		t.Error(err)
	}
}

func testSwapLink(t *testing.T, p *place) {
	dir := filepath.Join(p.root, "elsewhere")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(dir, "store.img")
	writeImage(t, elsewhere, 1)
	p.link("mine", elsewhere)
	p.addDisk("new", 2*mib)
	old, renewed := p.content("disks", "mine"), p.content("disks", "new")
	if err := p.SwapDisks("new", "mine"); err != nil {
		t.Fatal(err)
	}
	if p.content("disks", "mine") != renewed || p.content("disks", "new") != old {
		t.Error("they have not changed places")
	}
	if info := must(os.Lstat(elsewhere))(t); info.Size() != 11*mib {
		t.Errorf("at the image's own path are %d bytes", info.Size())
	}
}

func testSwapElsewhere(t *testing.T, p *place) {
	elsewhere := filepath.Join(t.TempDir(), "store.img")
	writeImage(t, elsewhere, 1)
	p.link("mine", elsewhere)
	p.addDisk("new", 2)
	before := p.contents()
	wantError(t, p.SwapDisks("mine", "new"), cpi.CloudError, "are not on one filesystem")
	if after := p.contents(); after["mine"] != before["mine"] || after["new"] != before["new"] {
		t.Error("something was exchanged")
	}
}

func TestAnImageOfHolesAndAnEmptyOneCanBeCopied(t *testing.T) {
	t.Parallel()
	small := onExt4
	small.size = "20M"
	p := small.alone(t)
	for _, size := range []int64{0, 1, 1 << 30} {
		p.addDisk("d", 0)
		if err := os.Truncate(p.data("disks", "d"), size); err != nil {
			t.Fatal(err)
		}
		cid := must(p.SnapshotDisk("d", nil))(t)
		if info := must(os.Stat(p.data("snapshots", cid)))(t); info.Size() != size {
			t.Errorf("got %d bytes, want %d", info.Size(), size)
		}
	}
}
