package local_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/cpi/local"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

const mib = 1 << 20

// stage is a filesystem and the driver whose disks lie on it. The tests mount
// filesystems of their own, for which they have to be root; they fail where they cannot.
type stage struct {
	name    string
	driver  string
	how     string // the method of its snapshots
	fstype  string
	size    string
	options []string // of mkfs
}

var (
	onXFS   = stage{"images on XFS", "image", "reflink", "xfs", "300M", []string{"-q", "-m", "reflink=1"}}
	onExt4  = stage{"images on ext4", "image", "copy", "ext4", "200M", []string{"-q", "-F"}}
	onBtrfs = stage{"subvolumes of btrfs", "btrfs", "subvolume", "btrfs", "200M", []string{"-q"}}
	stages  = []stage{onXFS, onExt4, onBtrfs}
)

// filesystem is a stage that is mounted until its test ends.
type filesystem struct {
	stage
	image string
	at    string
}

func (s stage) mount(t *testing.T) *filesystem {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts a filesystem and has to be run by root")
	}
	dir := t.TempDir()
	f := &filesystem{s, filepath.Join(dir, "image"), filepath.Join(dir, "mounted")}
	command(t, "truncate", "-s", s.size, f.image)
	command(t, "mkfs."+s.fstype, append(slices.Clone(s.options), f.image)...)
	if err := loopfs.Mount(f.image, f.at); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, f.at) })
	return f
}

// unmount tries for a while: a process that another test is about to start has our
// files open for an instant.
func unmount(t *testing.T, at string) {
	t.Helper()
	if err := loopfs.Unmount(at); err != nil {
		t.Error(err)
	}
}

// eventually repeats a call that is in order once something is mounted nowhere any more:
// a mount namespace that others made meanwhile may have it still.
func eventually(t *testing.T, call func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = call(); err == nil {
			return
		}
	}
	t.Error(err)
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// place is a store on a stage, with a root of its own.
type place struct {
	*local.Store
	stage
	t    *testing.T
	root string
}

func (f *filesystem) place(t *testing.T) *place {
	t.Helper()
	root, err := os.MkdirTemp(f.at, "root-")
	if err != nil {
		t.Fatal(err)
	}
	return f.open(t, root)
}

// alone is a place on a filesystem that no other test uses.
func (s stage) alone(t *testing.T) *place { return s.mount(t).place(t) }

// open is a place in a directory that is there.
func (s stage) open(t *testing.T, root string) *place {
	t.Helper()
	return &place{s.store(t, root), s, t, root}
}

func (s stage) store(t *testing.T, root string) *local.Store {
	t.Helper()
	store, err := local.Open(root, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	store.Driver = s.driver
	return store
}

func (p *place) folder(name string) string { return filepath.Join(p.root, name) }

// entry is the name of what makes a CID exist.
func (s stage) entry(cid string) string {
	if s.driver == "image" {
		return cid + ".img"
	}
	return cid
}

// data is the path of a file that has a disk's or a snapshot's content: the image
// itself, or one file in the subvolume.
func (p *place) data(folder, cid string) string {
	if p.driver == "image" {
		return filepath.Join(p.root, folder, cid+".img")
	}
	return filepath.Join(p.root, folder, cid, "data")
}

// addDisk makes a disk by hand with so much data at 1 MiB, between holes of 1 MiB and
// 8 MiB.
func (p *place) addDisk(cid string, data int) {
	p.t.Helper()
	if err := os.MkdirAll(p.folder("disks"), 0o700); err != nil {
		p.t.Fatal(err)
	}
	if p.driver == "btrfs" {
		command(p.t, "btrfs", "subvolume", "create", filepath.Join(p.folder("disks"), cid))
	}
	writeImage(p.t, p.data("disks", cid), data)
}

func writeImage(t *testing.T, path string, data int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	random := rand.NewChaCha8([32]byte{1})
	block := make([]byte, mib)
	for at := 0; at < data; at += len(block) {
		random.Read(block)
		if _, err := f.WriteAt(block[:min(mib, data-at)], int64(at+mib)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(int64(data) + 9*mib); err != nil {
		t.Fatal(err)
	}
}

// overwrite changes the first bytes of a disk.
func (p *place) overwrite(disk, text string) {
	p.t.Helper()
	f, err := os.OpenFile(p.data("disks", disk), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		p.t.Fatal(err)
	}
}

// content is a digest of what a disk or a snapshot holds, up to the zeros at its end: a
// bigger disk has more of them. An empty subvolume holds the same as an empty image.
func (p *place) content(folder, cid string) string {
	p.t.Helper()
	text, err := os.ReadFile(p.data(folder, cid))
	if err != nil && (p.driver == "image" || !errors.Is(err, fs.ErrNotExist)) {
		p.t.Fatal(err)
	}
	for zeros := make([]byte, mib); bytes.HasSuffix(text, zeros); { // faster than byte by byte
		text = text[:len(text)-mib]
	}
	return fmt.Sprintf("%x", sha256.Sum256(bytes.TrimRight(text, "\x00")))
}

// contents is content of all that the store says is there.
func (p *place) contents() map[string]string {
	p.t.Helper()
	disks, err := p.Disks("")
	if err != nil {
		p.t.Fatal(err)
	}
	found := map[string]string{}
	for _, disk := range disks {
		found[disk] = p.content("disks", disk)
	}
	for _, snapshot := range p.listed() {
		found[snapshot] = p.content("snapshots", snapshot)
	}
	return found
}

// listed are the CIDs of the snapshots.
func (p *place) listed() []string {
	p.t.Helper()
	if _, err := os.Stat(p.folder("snapshots")); err != nil {
		return nil
	}
	snapshots, err := p.Snapshots()
	if err != nil {
		p.t.Fatal(err)
	}
	var cids []string
	for _, s := range snapshots {
		cids = append(cids, s.CID)
	}
	return cids
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := []string{}
	for _, entry := range entries {
		found = append(found, entry.Name())
	}
	return found
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if diff := cmp.Diff(append([]string{}, want...), names(t, dir)); diff != "" {
		t.Errorf("%s: -want +got\n%s", filepath.Base(dir), diff)
	}
}

// wantOnly wants nothing in a folder but the CIDs that are given, each with a sidecar or
// without.
func (p *place) wantOnly(folder string, cids ...string) {
	p.t.Helper()
	want := map[string]bool{}
	for _, cid := range cids {
		want[p.entry(cid)] = true
	}
	for _, name := range names(p.t, p.folder(folder)) {
		cid, sidecar := strings.CutSuffix(name, ".json")
		if sidecar && slices.Contains(cids, cid) {
			continue
		}
		if !want[name] {
			p.t.Errorf("%q is left in %s", name, folder)
		}
		delete(want, name)
	}
	for name := range maps.Keys(want) {
		p.t.Errorf("%q is missing in %s", name, folder)
	}
}
