package fscheck_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// sizes are those of filesystems that are as small as they can be, in bytes.
var sizes = map[string]int64{"ext4": 32 << 20, "xfs": loopfs.MinXFS, "btrfs": 128 << 20}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func command(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// memory is a directory in memory: images are written to again and again.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "fscheck-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

// original is a filesystem that is mounted and in use: a file is unlinked and open, and
// what was written last is in the journal alone.
func original(t *testing.T, fstype string) *loopfs.FS {
	t.Helper()
	f, err := loopfs.Make(memory(t), "store", fstype, sizes[fstype])
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	must(t, os.Mkdir(f.Mount+"/d", 0o755))
	for i := range 300 {
		must(t, os.WriteFile(f.Mount+"/d/"+strconv.Itoa(i), bytes.Repeat([]byte{byte(i)}, 3000), 0o644))
	}
	command(t, "sync", "-f", f.Mount)
	open, err := os.Create(f.Mount + "/unlinked")
	must(t, err)
	t.Cleanup(func() { _ = open.Close() })
	_, err = open.Write(make([]byte, 100<<10))
	must(t, err)
	must(t, os.Remove(open.Name()))
	last, err := os.Create(f.Mount + "/last")
	must(t, err)
	_, err = last.WriteString("the last words\n")
	must(t, err)
	must(t, last.Sync())
	must(t, last.Close())
	return f
}

// copied is a loop device of a copy of the filesystem's image as it is now.
func copied(t *testing.T, f *loopfs.FS, frozen bool) (device, image string) {
	t.Helper()
	image = filepath.Join(memory(t), "copy.img")
	if frozen {
		stop, err := loopfs.ThawAfter(f.Mount, 20*time.Second)
		must(t, err)
		defer stop()
		command(t, "fsfreeze", "-f", f.Mount)
	}
	command(t, "cp", "--sparse=always", f.Image, image)
	return attached(t, image), image
}

func attached(t *testing.T, image string) string {
	t.Helper()
	device := command(t, "losetup", "--find", "--show", image)
	t.Cleanup(func() { command(t, "losetup", "--detach", device) })
	return device
}

// btrfsOfTwo makes a btrfs of two devices. The kernel remembers them until the test's end.
func btrfsOfTwo(t *testing.T, one, other string) {
	t.Helper()
	command(t, "mkfs.btrfs", "-q", "-f", "--mixed", one, other)
	t.Cleanup(func() {
		for _, device := range []string{one, other} {
			_ = exec.Command("btrfs", "device", "scan", "--forget", device).Run() // it may be forgotten already
		}
	})
}

// disk is a device of zeros.
func disk(t *testing.T) string {
	t.Helper()
	image := filepath.Join(memory(t), "disk.img")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 64<<20))
	return attached(t, image)
}

// damages overwrite metadata in an image.
var damages = []struct {
	name, fstype string
	places       func(image []byte) []int // where
}{
	{"inodes of ext4", "ext4", func(image []byte) []int { return []int{extInodes(image) + 12*256} }},
	{"a group descriptor of ext4", "ext4", func(image []byte) []int { return []int{extGroups(image)} }},
	{"the superblock of ext4", "ext4", func([]byte) []int { return []int{1024} }},
	{"inodes of XFS", "xfs", func(image []byte) []int { return []int{xfsRoot(image)} }},
	{"a free space header of XFS", "xfs", func(image []byte) []int { return []int{xfsGroup(image) + 512} }},
	{"both copies of a tree block of btrfs", "btrfs", btrfsBlocks},
}

// damage overwrites so many bytes at places of an image.
func damage(t *testing.T, image string, places func([]byte) []int) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	must(t, err)
	text, err := io.ReadAll(io.LimitReader(f, sizes["btrfs"])) // tells where, on each
	must(t, err)
	where := places(text)
	if len(where) == 0 {
		t.Fatal("there is nothing to be damaged")
	}
	for _, at := range where {
		_, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, 300), int64(at)+16)
		must(t, err)
	}
	must(t, f.Close())
}

func extGroups(image []byte) int {
	size := 1024 << binary.LittleEndian.Uint32(image[1024+24:])
	first := int(binary.LittleEndian.Uint32(image[1024+20:]))
	return (first + 1) * size
}

func extInodes(image []byte) int {
	size := 1024 << binary.LittleEndian.Uint32(image[1024+24:])
	return int(binary.LittleEndian.Uint32(image[extGroups(image)+8:])) * size
}

func xfsRoot(image []byte) int {
	size, inode := binary.BigEndian.Uint32(image[4:]), binary.BigEndian.Uint16(image[104:])
	root, perBlock := int(binary.BigEndian.Uint64(image[56:])), int(image[123])
	return root>>perBlock*int(size) + root%(1<<perBlock)*int(inode)
}

// xfsGroup is the second allocation group.
func xfsGroup(image []byte) int {
	return int(binary.BigEndian.Uint32(image[84:])) * int(binary.BigEndian.Uint32(image[4:]))
}

// btrfsBlocks are the tree blocks that hold files.
func btrfsBlocks(image []byte) []int {
	const block, fsid, owner, files = 16 << 10, 32, 88, 5
	var all []int
	id := image[64<<10+fsid:][:16]
	for at := block; at+block <= len(image); at += block {
		if bytes.Equal(image[at+fsid:][:16], id) && binary.LittleEndian.Uint64(image[at+owner:]) == files {
			all = append(all, at)
		}
	}
	return all
}
