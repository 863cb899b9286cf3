package local_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/cpi/local"
)

// TestSubvolumes is what only disks that are subvolumes have to do with.
func TestSubvolumes(t *testing.T) {
	t.Parallel()
	f := onBtrfs.mount(t)
	for name, test := range map[string]func(*testing.T, *place){
		"a subvolume elsewhere is a disk through a link":             testSubvolumeLink,
		"a directory is no disk":                                     testDirectory,
		"one with others within it is not snapshotted, nor deleted":  testNested,
		"one that is mounted somewhere is not deleted":               testMounted,
		"an image lies beside it and is not swapped for it":          testBeside,
		"what has the name of an image or a sidecar is none":         testReserved,
		"the size of a disk is noted, and a snapshot needs no other": testNoSize,
	} {
		t.Run(name, func(t *testing.T) { test(t, f.place(t)) })
	}
}

func makeSubvolume(t *testing.T, path string) {
	t.Helper()
	command(t, "btrfs", "subvolume", "create", path)
}

func testSubvolumeLink(t *testing.T, p *place) {
	elsewhere := filepath.Join(p.root, "elsewhere")
	makeSubvolume(t, elsewhere)
	writeImage(t, filepath.Join(elsewhere, "data"), 1)
	p.link("mine", elsewhere)
	p.addDisk("new", 2)
	cid := must(p.SnapshotDisk("mine", nil))(t)
	old, renewed := p.content("snapshots", cid), p.content("disks", "new")
	if p.content("disks", "mine") != old {
		t.Error("the snapshot differs from the subvolume")
	}
	if err := p.SwapDisks("mine", "new"); err != nil {
		t.Fatal(err)
	}
	if p.content("disks", "mine") != renewed || p.content("disks", "new") != old {
		t.Error("they have not changed places")
	}
	if err := p.DeleteDisk("mine"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(elsewhere, "data")); err != nil {
		t.Errorf("the subvolume was deleted: %v", err)
	}
}

func testDirectory(t *testing.T, p *place) {
	plain := filepath.Join(p.folder("disks"), "plain")
	if err := errors.Join(os.MkdirAll(plain, 0o700), os.WriteFile(filepath.Join(p.folder("disks"), "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	p.link("link", plain)
	for disk, want := range map[string]cpi.ErrorType{"plain": cpi.DiskNotFound, "file": cpi.DiskNotFound, "link": cpi.CloudError} {
		_, err := p.SnapshotDisk(disk, nil)
		wantError(t, err, want, disk)
	}
}

func testNested(t *testing.T, p *place) {
	p.addDisk("d", 1)
	if err := p.SetDiskMetadata("d", local.Object{"a": raw("1")}); err != nil {
		t.Fatal(err)
	}
	nested := filepath.Join(p.folder("disks"), "d", "nested")
	makeSubvolume(t, nested)
	_, err := p.SnapshotDisk("d", nil)
	wantError(t, err, cpi.CloudError, `disk "d": other subvolumes lie within it`)
	wantError(t, p.DeleteDisk("d"), cpi.CloudError, `disk "d": other subvolumes lie within it`)
	wantNames(t, p.folder("disks"), "d", "d.json")
	wantNames(t, p.folder("snapshots"))
	command(t, "btrfs", "subvolume", "delete", nested)
	must(p.SnapshotDisk("d", nil))(t)
}

func testMounted(t *testing.T, p *place) {
	p.addDisk("d", 1)
	if err := os.Mkdir(filepath.Join(p.folder("disks"), "d", "below"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.addDisk("d2", 1) // whose name begins with the other's
	device := strings.TrimSpace(string(must(exec.Command("findmnt", "-no", "SOURCE", "-T", p.root).Output())(t)))
	path := strings.TrimPrefix(filepath.Join(p.folder("disks"), "d"), filepath.Dir(p.root))
	for name, mount := range map[string][]string{
		"as a subvolume":       {"-o", "subvol=" + path, device},
		"by a bind mount":      {"--bind", filepath.Join(p.folder("disks"), "d")},
		"a directory of it":    {"--bind", filepath.Join(p.folder("disks"), "d", "below")},
		"below another's root": {"--bind", "-o", "ro", filepath.Join(p.folder("disks"), "d")},
	} {
		at := filepath.Join(t.TempDir(), `a "b`)
		if err := os.Mkdir(at, 0o700); err != nil {
			t.Fatal(err)
		}
		command(t, "mount", append(mount, at)...)
		for _, err := range []error{p.DeleteDisk("d"), p.DetachDisk("d"), p.SwapDisks("d", "d2")} {
			if !errors.Is(err, cpi.CloudError) || !strings.Contains(err.Error(), filepath.Dir(at)) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		unmount(t, at)
	}
	elsewhere := inNamespace(t, filepath.Join(p.folder("disks"), "d"))
	wantError(t, p.DeleteDisk("d"), cpi.CloudError, "in the mount namespace of process ")
	elsewhere()
	for _, disk := range []string{"d", "d2"} {
		eventually(t, func() error { return p.DeleteDisk(disk) })
	}
}

// inNamespace mounts a directory in a mount namespace of its own, until it is told to
// stop.
func inNamespace(t *testing.T, path string) (stop func()) {
	t.Helper()
	cmd := exec.Command("unshare", "--mount", "sh", "-c", `mount --bind "$1" /mnt && echo && read x`, "sh", path)
	in := must(cmd.StdinPipe())(t)
	out := must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return func() {
		in.Close()
		_ = cmd.Wait()
	}
}

func testBeside(t *testing.T, p *place) {
	p.addDisk("both", 1)
	image := must(p.store(t, p.root).CreateDisk(1, local.Object{"driver": raw(`"image"`)}, ""))(t)
	if info := must(os.Stat(filepath.Join(p.folder("disks"), image+".img")))(t); info.Size() != mib {
		t.Errorf("the image has %d bytes", info.Size())
	}
	wantError(t, p.SwapDisks("both", image), cpi.CpiError, "not of one driver")
	snapshot := must(p.SnapshotDisk(image, nil))(t)
	wantNames(t, p.folder("snapshots"), snapshot+".img", snapshot+".json")
	if err := errors.Join(p.DeleteSnapshot(snapshot), p.DeleteDisk(image)); err != nil {
		t.Error(err)
	}
}

func testReserved(t *testing.T, p *place) {
	p.addDisk("d", 1)
	for _, name := range []string{"e.img", "f.json"} {
		makeSubvolume(t, filepath.Join(p.folder("disks"), name))
		if has, err := p.HasDisk(name); has || err != nil {
			t.Errorf("%s: got %v, %v", name, has, err)
		}
	}
}

func testNoSize(t *testing.T, p *place) {
	p.addDisk("d", mib)
	snapshot := must(p.SnapshotDisk("d", nil))(t)
	disk := must(p.CreateDisk(1, fromSnapshot(snapshot), ""))(t)
	if got := sidecar(t, filepath.Join(p.folder("disks"), disk+".json")); got["size"] != float64(mib) {
		t.Errorf("noted are %v bytes", got["size"])
	}
}

func TestSubvolumesNeedBtrfs(t *testing.T) {
	t.Parallel()
	p := onExt4.alone(t)
	p.Driver = "btrfs"
	_, err := p.CreateDisk(1, nil, "")
	wantError(t, err, cpi.CloudError, "is not on btrfs")
	p.wantOnly("disks")
}
