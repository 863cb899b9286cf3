package quiesce_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce"
)

// wantNotes compares what is said about disks.
func wantNotes(t *testing.T, disks []quiesce.Disk, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, contents(t, disks...).Notes); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestSwapOnADiskIsNoticed(t *testing.T) {
	dir := t.TempDir()
	loop := partitioned(t, dir, 2)
	store := mount(t, dir+"/1", loop+"p1")
	swapOn(t, loop+"p2")
	t.Run("a partition, which is claimed and yet known", func(t *testing.T) {
		wantNotes(t, disks(store), "swap is active on "+loop+"p2, which lies on the disk: the snapshot has it as it happens to be")
	})
	file := store + "/swap file"
	run(t, "dd", "if=/dev/zero", "of="+file, "bs=1M", "count=2", "status=none")
	swapOn(t, file)
	t.Run("a file beside it", func(t *testing.T) {
		wantNotes(t, disks(store),
			"swap is active on "+loop+"p2, which lies on the disk: the snapshot has it as it happens to be",
			"swap file "+file+" lies on "+store+": no freeze holds it, and the snapshot has it as it happens to be")
	})
	t.Run("not from another disk", func(t *testing.T) {
		wantNotes(t, disks(makeFS(t, dir, "other", "ext4").Mount))
	})
}

func swapOn(t testing.TB, path string) {
	t.Helper()
	must(t, os.Chmod(path, 0o600))
	run(t, "mkswap", "-q", path)
	run(t, "swapon", path)
	t.Cleanup(func() { run(t, "swapoff", path) })
}

func TestJournalThatLiesOnAnotherDiskIsNoticed(t *testing.T) {
	for name, c := range map[string]struct {
		size          int64
		format        func(t *testing.T, data, journal string)
		options, kind string
		without       string
	}{
		"ext4": {
			16 << 20,
			func(t *testing.T, data, journal string) {
				run(t, "mke2fs", "-q", "-b", "4096", "-O", "journal_dev", journal)
				run(t, "mkfs.ext4", "-q", "-b", "4096", "-J", "device="+journal, data)
			},
			"", "journal", "a copy has all data, and can be mounted once the journal is taken from it (tune2fs -f -O ^has_journal)",
		},
		"xfs": {
			300 << 20,
			func(t *testing.T, data, journal string) { run(t, "mkfs.xfs", "-q", "-l", "logdev="+journal, data) },
			",logdev=", "log", "a copy has all data, and can be mounted once it is given a new log (xfs_repair -L -l LOGDEVICE)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			data, journal := attach(t, dir+"/data.img", c.size), attach(t, dir+"/journal.img", 128<<20)
			c.format(t, data, journal)
			options := "rw"
			if c.options != "" {
				options += c.options + journal
			}
			at := mount(t, dir+"/store", "-o", options, data)
			short := filepath.Base(journal)
			t.Run("from the filesystem's disk", func(t *testing.T) {
				wantNotes(t, disks(at), at+" has its "+c.kind+" on "+short+", which no disk of this snapshot covers: "+c.without)
			})
			t.Run("from the journal's disk", func(t *testing.T) {
				wantNotes(t, []quiesce.Disk{{CID: "j", Device: journal}},
					"nothing on disk j is mounted: nothing to bring to rest",
					short+" on the disk is the "+c.kind+" of "+at+", which is not frozen")
			})
			t.Run("not with both disks", func(t *testing.T) {
				got := contents(t, quiesce.Disk{CID: "d", Mounts: []string{at}}, quiesce.Disk{CID: "j", Device: journal})
				want := []string{"nothing on disk j is mounted: nothing to bring to rest"}
				if diff := cmp.Diff(want, got.Notes); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			})
		})
	}
}

func TestJournalOfAFilesystemInAnotherNamespaceIsNoticed(t *testing.T) {
	dir := t.TempDir()
	data, journal := attach(t, dir+"/data.img", 300<<20), attach(t, dir+"/log.img", 128<<20)
	nothing := "nothing on disk j is mounted: nothing to bring to rest"
	on := []quiesce.Disk{{CID: "j", Device: journal}}
	t.Run("xfs", func(t *testing.T) {
		run(t, "mkfs.xfs", "-q", "-l", "logdev="+journal, data)
		theirs := inNamespace(t, data, dir+"/xfs", "-o", "logdev="+journal)
		wantNotes(t, on, nothing, filepath.Base(journal)+" on the disk is the log of "+theirs+", which is not frozen")
	})
	t.Run("ext4", func(t *testing.T) {
		run(t, "mke2fs", "-q", "-F", "-b", "4096", "-O", "journal_dev", journal)
		run(t, "mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "device="+journal, data)
		inNamespace(t, data, dir+"/ext4")
		wantNotes(t, on, nothing, filepath.Base(journal)+" on the disk is the journal of a filesystem in another mount namespace, which is not frozen")
	})
}

// What a note says of a copy without its journal or log is so.
func TestCopyWithoutItsJournalCanBeMountedAsTheNoteSays(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		size   int64
		format []string
		option string
		repair func(t *testing.T, device string) string // answers mount options
	}{
		"ext4": {
			16 << 20, []string{"mkfs.ext4", "-q", "-b", "4096", "-J", "device=JOURNAL"}, "rw",
			func(t *testing.T, device string) string {
				run(t, "tune2fs", "-f", "-O", "^has_journal", device)
				return "rw"
			},
		},
		"xfs": {
			300 << 20, []string{"mkfs.xfs", "-q", "-l", "logdev=JOURNAL"}, "logdev=JOURNAL",
			func(t *testing.T, device string) string {
				log := attach(t, dir+"/log.img", 128<<20)
				run(t, "xfs_repair", "-L", "-l", log, device)
				return "nouuid,logdev=" + log
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			data, journal := attach(t, dir+"/"+name+".img", c.size), attach(t, dir+"/"+name+".journal", 128<<20)
			if name == "ext4" {
				run(t, "mke2fs", "-q", "-b", "4096", "-O", "journal_dev", journal)
			}
			format := strings.Fields(strings.ReplaceAll(strings.Join(c.format, " "), "JOURNAL", journal))
			run(t, format[0], append(format[1:], data)...)
			at := mount(t, dir+"/"+name, "-o", strings.ReplaceAll(c.option, "JOURNAL", journal), data)
			must(t, os.WriteFile(at+"/precious", []byte("data"), 0o600))
			whileFrozen(t, at, func() { run(t, "cp", dir+"/"+name+".img", dir+"/"+name+".copy") })
			loop := run(t, "losetup", "-f", "--show", dir+"/"+name+".copy")
			t.Cleanup(func() { run(t, "losetup", "-d", loop) })
			again := mount(t, dir+"/"+name+"-copy", "-o", c.repair(t, loop), loop)
			if text, err := os.ReadFile(again + "/precious"); err != nil || string(text) != "data" {
				t.Errorf("got %q, %v", text, err)
			}
		})
	}
}

func TestOverlayThatWritesToADiskIsNoticed(t *testing.T) {
	dir := t.TempDir()
	store := makeFS(t, dir, "store", "ext4")
	for _, name := range []string{"1", "2"} {
		must(t, os.Mkdir(store.Mount+"/"+name, 0o755))
		overlay(t, store.Mount+"/"+name, dir+"/merged-"+name)
	}
	wantNotes(t, disks(store.Mount), store.Mount+" is what the overlay at "+dir+"/merged-1, "+dir+"/merged-2 writes to, which is held with it")
	if found := find(t, store.Mount); len(found) != 1 {
		t.Errorf("got %+v", found)
	}
}
