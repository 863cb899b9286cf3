package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

func TestUnderADirectorADiskIsMadeAndTheWayShown(t *testing.T) {
	w, bus := newWorld(t), apitest.StartDirectorBus(t, false)
	w.onStemcell(bus, apitest.AgentCN)
	w.start()
	_, taken := w.take()
	cid := taken.Disks[0].SnapshotCID
	steps := []string{
		"bosh -d cf stop --no-converge db/inst-1", "bosh -d cf attach-disk --disk-properties=copy db/inst-1 ",
		"bosh -d cf start --no-converge db/inst-1", "bosh disks --orphaned",
	}
	w.mustSay(w.run("restore", cid, "--dry-run"), exitOK, append(steps, "NEW-DISK-CID", "nothing was done", "until it is told to attach it")...)
	r := w.run("restore", cid, "--yes", "--json")
	w.mustSay(r, exitOK)
	report := w.report(r)
	if report.Restore == nil || report.Restore.Side != "apart" {
		t.Fatalf("the report is %+v", report)
	}
	made := report.Restore.Other
	steps[1] += made
	if got := strings.Join(report.Restore.Steps, "\n"); got != strings.Join(steps, "\n") {
		t.Errorf("the steps are\n%s", got)
	}
	snapshot := filepath.Join(w.root, "snapshots", cid+".img")
	image := filepath.Join(w.root, "disks", made+".img")
	if out, err := exec.Command("cmp", snapshot, image).CombinedOutput(); err != nil {
		t.Errorf("the disk does not hold the snapshot: %v: %s", err, out)
	}
	w.mustBeGoing()
	w.mustSay(w.run("restore", cid, "--yes"), exitOK, "is not attached. Disk disk-1 is as it was", "attach-disk")
}

// A disk of local-cpi's may be a subvolume among others, which is bound to its place.
func TestASubvolumeIsRestored(t *testing.T) {
	dir := t.TempDir()
	images, err := loopfs.Make(dir, "images", "btrfs", 128<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := images.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{t: t, dir: dir, cid: "disk-1", root: images.Mount, cpi: filepath.Join(binaries, "local-cpi"), store: filepath.Join(dir, "store")}
	disk := filepath.Join(w.root, "disks", w.cid)
	for _, command := range [][]string{
		{"mkdir", "-p", filepath.Dir(disk), w.store}, {"btrfs", "subvolume", "create", disk}, {"mount", "--bind", disk, w.store},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", command, err, out)
		}
	}
	t.Cleanup(func() { w.must(loopfs.Unmount(w.store)) })
	t.Cleanup(w.end)
	w.configure(func(text string) string {
		return strings.Replace(text, "context:", "freezes_itself: true, context:", 1)
	})
	w.start()
	w.must(os.WriteFile(filepath.Join(w.store, "old"), []byte("data"), 0o600))
	r, taken := w.take()
	w.mustSay(r, exitOK)
	w.must(os.Remove(filepath.Join(w.store, "old")))
	r = w.run("restore", taken.Disks[0].SnapshotCID, "--yes", "--json")
	w.mustSay(r, exitOK)
	if got, err := os.ReadFile(filepath.Join(w.store, "old")); err != nil || string(got) != "data" {
		t.Errorf("the file has %q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(w.root, "disks", w.report(r).Restore.Other)); err != nil {
		t.Error(err)
	}
}

// Without a supervisor nothing is stopped, and a snapshot that is not clean is warned of.
func TestARestoreOfADirtySnapshotIsWarnedOf(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must(os.WriteFile(filepath.Join(w.store, "old"), nil, 0o600))
	_, taken := w.take("--level", "sync")
	w.must(os.Remove(filepath.Join(w.store, "old")))
	cid := taken.Disks[0].SnapshotCID
	w.mustSay(w.run("restore", cid, "--yes"), exitOK, "WARNING: THE SNAPSHOT IS NOT CLEAN: LEVEL \"SYNC\" PROMISES NO MORE",
		"no supervisor is configured", "Disk disk-1 has the data of snapshot "+cid)
	if _, err := os.Stat(filepath.Join(w.store, "old")); err != nil {
		t.Error(err)
	}
	w.mustBeGoing()
	w.kill() // what was restored is known to the next daemon, too
	w.start()
	w.mustSay(w.run("status"), exitOK, "Restored ", "Disk disk-1 has the data of snapshot "+cid)
}

func TestWithoutACPITheDirectorsWayBeginsAtTheIaaS(t *testing.T) {
	w, bus := newWorld(t), apitest.StartDirectorBus(t, false)
	w.onStemcell(bus, apitest.AgentCN)
	w.script(`case "$request" in *snapshot_disk*) ` + answered("snap-1") + "\n;; esac\n")
	w.start()
	w.mustSay(w.run("take-snapshot"), exitOK)
	w.mustSay(w.run("restore", "snap-1", "--dry-run"), exitOK, "# make a disk from snapshot snap-1 at the IaaS", "list_snapshots", "NEW-DISK-CID")
	w.mustSay(w.run("restore", "snap-1", "--yes"), exitRefused, "attach-disk", "list_snapshots")
}

// What a restore cannot do it refuses by name, and touches nothing.
func TestARestoreIsRefusedByName(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(w *world) // before the restore
		args    []string
		code    int
		says    string
	}{
		"a snapshot that nobody knows": {func(*world) {}, []string{"snap-of-others"}, exitRefused, `unknown snapshot "snap-of-others"`},
		"a filesystem within the disk": {func(w *world) {
			w.must(os.Mkdir(filepath.Join(w.store, "tmp"), 0o755))
			w.must(exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", filepath.Join(w.store, "tmp")).Run())
			w.t.Cleanup(func() { w.must(exec.Command("umount", filepath.Join(w.store, "tmp")).Run()) })
		}, nil, exitRefused, "tmpfs is mounted within it"},
		"an image in use on the disk": {func(w *world) {
			image, at := filepath.Join(w.store, "nested.img"), filepath.Join(w.dir, "nested")
			w.must(os.WriteFile(image, nil, 0o600))
			w.must(os.Truncate(image, 4<<20))
			w.must(loopfs.Format(image, "ext4"))
			w.must(loopfs.Mount(image, at))
			w.t.Cleanup(func() { w.must(loopfs.Unmount(at)) })
		}, nil, exitRefused, "it has not one filesystem, but"},
		"a CPI that cannot exchange disks": {func(w *world) {
			w.end()
			w.cpi = filepath.Join(w.dir, "old-cpi")
			w.must(os.WriteFile(w.cpi, []byte(`#!/bin/sh
request=$(cat)
case "$request" in *swap_disks*) echo '{"result":null,"error":{"type":"Bosh::Clouds::NotImplemented","message":"no","ok_to_retry":false},"log":""}'; exit;; esac
printf %s "$request" | `+filepath.Join(binaries, "local-cpi")+"\n"), 0o755))
			w.start()
		}, nil, exitRefused, "the CPI cannot put one disk in the place of another (swap_disks)"},
		"a snapshot that is known to be bad": {func(w *world) {
			image := filepath.Join(w.root, "snapshots", w.snapshots()[0].CID+".img")
			w.must(os.Chmod(image, 0o600))
			w.must(exec.Command("dd", "if=/dev/urandom", "of="+image, "bs=64k", "seek=2", "count=20", "conv=notrunc").Run())
			w.mustSay(w.run("verify", "--latest"), exitFailed)
		}, nil, exitRefused, "is known to be bad (force restores it all the same)"},
		"no confirmation": {func(*world) {}, []string{}, exitUsage, "not confirmed"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.start()
			_, taken := w.take()
			c.prepare(w)
			args := c.args
			if len(args) == 0 {
				args = []string{taken.Disks[0].SnapshotCID}
			}
			if c.code != exitUsage {
				args = append(args, "--yes")
			}
			w.mustSay(w.run(append([]string{"restore"}, args...)...), c.code, c.says)
			images, err := filepath.Glob(filepath.Join(w.root, "disks", "*.img"))
			if err != nil || len(images) != 1 {
				t.Errorf("disks are %q, %v", images, err)
			}
			w.mustBeGoing()
			for _, s := range w.snapshots() {
				if strings.Contains(s.Note, "restored") {
					t.Errorf("the snapshot is %+v", s)
				}
			}
			var status struct {
				Restored *json.RawMessage `json:"last_restore"`
			}
			w.must(json.Unmarshal([]byte(w.run("status", "--json").out), &status))
			if status.Restored != nil {
				t.Errorf("the status has a restore: %s", *status.Restored)
			}
		})
	}
}
