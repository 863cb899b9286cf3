package local_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The tests make filesystems of their own and mount them, for which they have
// to be root. They fail where they cannot.

func mountXFS(t *testing.T) string {
	t.Helper()
	return mount(t, "xfs", "300M", "-q", "-m", "reflink=1")
}

func mountExt4(t *testing.T, size string) string {
	t.Helper()
	return mount(t, "ext4", size, "-q", "-F")
}

// mount makes a filesystem in an image file and mounts it until the test ends.
func mount(t *testing.T, kind, size string, options ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts a filesystem and has to be run by root")
	}
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "mounted")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	command(t, "truncate", "-s", size, image)
	command(t, "mkfs."+kind, append(options, image)...)
	command(t, "mount", "-o", "loop", image, at)
	t.Cleanup(func() { command(t, "umount", at) })
	return at
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}
