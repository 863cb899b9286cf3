package quiesce_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce"
)

func TestOnlyAReadOnlySuperblockIsReadOnly(t *testing.T) {
	dir := t.TempDir()
	store := makeFS(t, dir, "store", "ext4")
	bound := bind(t, store.Mount, dir+"/bound")
	run(t, "mount", "-o", "remount,bind,ro", bound)
	t.Run("a read-only mount of a filesystem that others write", func(t *testing.T) {
		if got := find(t, bound); got[0].ReadOnly {
			t.Errorf("got %+v", got[0])
		}
	})
	t.Run("a filesystem remounted read-only", func(t *testing.T) {
		run(t, "mount", "-o", "remount,ro", store.Mount)
		if got := find(t, store.Mount); !got[0].ReadOnly {
			t.Errorf("got %+v", got[0])
		}
	})
}

func TestFilesystemsThatCannotBeHeldAreNotFreezable(t *testing.T) {
	dir := t.TempDir()
	tmpfs := mount(t, dir+"/tmpfs", "-t", "tmpfs", "none")
	for name, at := range map[string]string{"tmpfs": tmpfs, "overlay": overlay(t, tmpfs, dir+"/merged")} {
		t.Run(name, func(t *testing.T) {
			f := find(t, at)[0]
			freeze := fmt.Sprintf("cannot freeze %q: a filesystem of type %s cannot be held by freezing it", at, name)
			if err := f.Freezable(); err == nil || err.Error() != freeze {
				t.Errorf("got %v\nwant %s", err, freeze)
			}
			write := fmt.Sprintf("cannot write out %q: a filesystem of type %s is never opened", at, name)
			if err := f.Writable(); err == nil || err.Error() != write {
				t.Errorf("got %v\nwant %s", err, write)
			}
		})
	}
}

func TestRootFilesystemIsFrozenOnlyIfConfigured(t *testing.T) {
	bound := bind(t, t.TempDir(), t.TempDir()+"/of-root")
	for name, at := range map[string]string{"the root": "/", "a bind mount of a part of it": bound} {
		t.Run(name, func(t *testing.T) {
			s, err := quiesce.System{Sys: t.TempDir()}.Survey() // without what else lies on this machine's disk
			must(t, err)
			found, err := s.Filesystems(disks(at))
			must(t, err)
			i := slices.IndexFunc(found.Filesystems, func(f quiesce.Filesystem) bool { return f.Path == at })
			if i < 0 || !found.Filesystems[i].Root || found.Filesystems[i].PassedOver() != "" || found.Filesystems[i].Freezable() != nil {
				t.Fatalf("got %+v", found.Filesystems)
			}
			binary := quiesce.Dependency{Name: "the daemon's executable", Path: "/usr/bin/env"}
			want := &quiesce.DependencyError{Dependency: binary, Mount: at}
			if diff := cmp.Diff(error(want), s.Independent(found.Filesystems[i:i+1], []quiesce.Dependency{binary})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestTypesThatAreNeverOpened(t *testing.T) {
	for fstype, c := range map[string]struct{ freezable, writable bool }{
		"ext4": {true, true}, "xfs": {true, true}, "btrfs": {true, true}, "ext3": {true, true}, "f2fs": {true, true},
		"vfat": {false, true}, "exfat": {false, true},
		"nfs": {}, "nfs4": {}, "fuse": {}, "fuse.sshfs": {}, "fuseblk.ntfs-3g": {}, "virtiofs": {}, "9p": {}, "ceph": {}, "cifs": {},
		"autofs": {}, "tmpfs": {}, "ramfs": {}, "overlay": {},
	} {
		t.Run(fstype, func(t *testing.T) {
			f := quiesce.Filesystem{Type: fstype, Path: "/store"}
			if freeze, write := f.Freezable(), f.Writable(); (freeze == nil) != c.freezable || (write == nil) != c.writable {
				t.Errorf("got %v, %v", freeze, write)
			}
		})
	}
}

func TestWhatIsPassedOver(t *testing.T) {
	for name, c := range map[string]struct {
		filesystem quiesce.Filesystem
		want       string
	}{
		"what is found and can be frozen is not": {quiesce.Filesystem{Type: "xfs"}, ""},
		"what is configured is not":              {quiesce.Filesystem{Type: "vfat", Configured: true, Root: true}, ""},
		"what is read-only, if configured too": {
			quiesce.Filesystem{Type: "xfs", Configured: true, ReadOnly: true}, "/x is read-only: nothing to bring to rest",
		},
		"the root that was found": {
			quiesce.Filesystem{Type: "xfs", Root: true},
			"/x lies on the disk and is not frozen: it is the root filesystem, and not among the configured mounts",
		},
		"a type that was found and cannot be frozen": {
			quiesce.Filesystem{Type: "vfat"},
			"/x lies on the disk and is not frozen: a filesystem of type vfat cannot be held by freezing it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.filesystem.Path = "/x"
			if got := c.filesystem.PassedOver(); got != c.want {
				t.Errorf("got %q\nwant %q", got, c.want)
			}
		})
	}
}
