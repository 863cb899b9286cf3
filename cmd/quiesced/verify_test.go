package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// verify verifies a snapshot, "--latest" for the newest clean one.
func (w *world) verify(which string) (result, api.Verified) {
	w.t.Helper()
	r := w.run("verify", which, "--json")
	var v api.Verified
	if r.code == exitOK || r.code == exitFailed {
		w.must(json.Unmarshal([]byte(r.out), &v))
	}
	return r, v
}

// mustBeClear asserts that a verification has left nothing: no disk, no loop device, no
// mount, no record, no process.
func (w *world) mustBeClear() {
	w.t.Helper()
	disks, err := filepath.Glob(filepath.Join(w.root, "disks", "*.img"))
	w.must(err)
	if len(disks) != 1 {
		w.t.Errorf("disks are left: %q", disks)
	}
	loops, err := exec.Command("losetup", "--list", "--noheadings", "--output", "BACK-FILE").Output()
	w.must(err)
	if n := strings.Count(string(loops), w.root); n != 1 {
		w.t.Errorf("loop devices are left:\n%s", loops)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	w.must(err)
	if n := strings.Count(string(mounts), w.dir+"/run"); n != 0 {
		w.t.Errorf("mounts are left:\n%s", mounts)
	}
	for _, left := range []string{"state/verification", "state/verification.json"} {
		if w.exists(left) {
			w.t.Errorf("%s is left", left)
		}
	}
}

// sum is the checksum of the disk, whose filesystem is at rest.
func (w *world) sum() string {
	w.t.Helper()
	w.must(exec.Command("sync", "-f", w.store).Run())
	text, err := os.ReadFile(filepath.Join(w.root, "disks", w.cid+".img"))
	w.must(err)
	return fmt.Sprintf("%x", sha256.Sum256(text))
}

var verifiedTypes = []struct {
	fstype, tool string
	size         int64
}{
	{"ext4", "e2fsck", 32 << 20}, {"xfs", "xfs_repair", loopfs.MinXFS}, {"btrfs", "btrfs", 128 << 20},
}

// damageSnapshot overwrites metadata of a snapshot's filesystem.
func (w *world) damageSnapshot(cid, fstype string) {
	w.t.Helper()
	image, err := os.OpenFile(filepath.Join(w.root, "snapshots", cid+".img"), os.O_RDWR, 0)
	w.must(err)
	text, err := os.ReadFile(image.Name())
	w.must(err)
	where := map[string]func([]byte) []int{"ext4": extInodes, "xfs": xfsInodes, "btrfs": btrfsFiles}[fstype](text)
	if len(where) == 0 {
		w.t.Fatal("there is nothing to be damaged")
	}
	for _, at := range where {
		_, err := image.WriteAt(bytes.Repeat([]byte{0xa5}, 300), int64(at))
		w.must(err)
	}
	w.must(image.Close())
}

// extInodes are the first inodes of files.
func extInodes(image []byte) []int {
	block := 1024 << binary.LittleEndian.Uint32(image[1024+24:])
	groups := (int(binary.LittleEndian.Uint32(image[1024+20:])) + 1) * block
	return []int{int(binary.LittleEndian.Uint32(image[groups+8:]))*block + 11*256}
}

// xfsInodes is the root directory's inode, and those after it.
func xfsInodes(image []byte) []int {
	block, inode := int(binary.BigEndian.Uint32(image[4:])), int(binary.BigEndian.Uint16(image[104:]))
	root, perBlock := int(binary.BigEndian.Uint64(image[56:])), int(image[123])
	return []int{root>>perBlock*block + root%(1<<perBlock)*inode}
}

// btrfsFiles are all copies of the tree blocks that hold files, behind their headers.
func btrfsFiles(image []byte) []int {
	const block, superblock, fsid, owner, files = 16 << 10, 64 << 10, 32, 88, 5
	var all []int
	for at := superblock + block; at+block <= len(image); at += block {
		mine := bytes.Equal(image[at+fsid:][:16], image[superblock+fsid:][:16])
		if mine && binary.LittleEndian.Uint64(image[at+owner:]) == files {
			all = append(all, at+120)
		}
	}
	return all
}

func TestSnapshotIsVerifiedBesideItsDiskAndDamageFound(t *testing.T) {
	for _, c := range verifiedTypes {
		t.Run(c.fstype, func(t *testing.T) {
			w := newWorldOn(t, t.TempDir(), host, c.fstype, c.size)
			w.configure()
			w.must(os.WriteFile(w.store+"/data", []byte("of the disk"), 0o600))
			w.start()
			_, report := w.take("--level", "freeze")
			cid, before := report.Disks[0].SnapshotCID, w.sum()
			r, v := w.verify("--latest")
			w.mustSay(r, exitOK)
			if !v.OK || v.CID != cid || v.How != c.tool || time.Since(v.Time) > time.Minute {
				t.Errorf("got %+v", v)
			}
			if s := w.snapshots()[0]; s.Verified == nil || *s.Verified != v.Verification || !s.Clean {
				t.Errorf("recorded is %+v", s.Verified)
			}

			w.damageSnapshot(cid, c.fstype)
			w.mustSay(w.run("verify", cid), exitFailed, cid, "false", "the filesystem is damaged: ")
			if s := w.snapshots()[0]; s.Verified == nil || s.Verified.OK || s.Verified.How != c.tool {
				t.Errorf("recorded is %+v", s.Verified)
			}
			if w.sum() != before {
				t.Error("the disk has changed")
			}
			w.mustBeClear()
		})
	}
}

// bend puts a script before local-cpi. It does what the file "bend" says: shell commands that
// see the request in $request and its method in $method, and that may end it. "call" has local-cpi answer.
func (w *world) bend() {
	w.t.Helper()
	local := w.cpi
	w.cpi = filepath.Join(w.dir, "cpi")
	w.must(os.WriteFile(w.cpi, []byte(`#!/bin/sh
dir=`+w.dir+`
request=$(cat)
method=${request#*\"method\":\"}
method=${method%%\"*}
call() { printf %s "$request" | `+local+`; }
answer() { printf '{"result":%s,"error":null,"log":""}' "$1"; exit; }
fail() { printf '{"result":null,"error":{"type":"Bosh::Clouds::%s","message":"bent","ok_to_retry":false},"log":""}' "$1"; exit; }
[ -e $dir/bend ] && . $dir/bend
call
`), 0o700))
}

func (w *world) bent(how string) {
	w.t.Helper()
	w.must(os.WriteFile(w.dir+"/bend.new", []byte(how), 0o600))
	w.must(os.Rename(w.dir+"/bend.new", w.dir+"/bend"))
}

func TestWhatKeepsASnapshotFromBeingVerifiedIsSaid(t *testing.T) {
	w := newWorld(t)
	w.bend()
	w.start()
	_, report := w.take("--level", "freeze")
	cid := report.Disks[0].SnapshotCID
	device := mountSource(t, w.store)
	before := w.sum()
	for _, c := range []struct {
		name, bend string
		code       int
		want       string
	}{
		{"a CPI that cannot make disks", `[ $method = create_disk ] && fail NotImplemented`, exitRefused, "the CPI cannot make disks"},
		{"one that fails to", `[ $method = create_disk ] && fail CloudError`, exitFailed, "CloudError: bent"},
		{"one that has never heard of snapshots", `[ $method = create_disk ] && request=$(printf %s "$request" | sed 's/"snapshot_cid":"[^"]*"//')`,
			exitFailed, "it holds nothing but zeros: this CPI may not make disks from snapshots"},
		{"one that answers the disk itself", `[ $method = create_disk ] && answer '"disk-1"'`, exitFailed, "the CID of a disk that was there before"},
		{"one that answers no CID", `[ $method = create_disk ] && answer 5`, exitFailed, "a disk whose CID nobody knows"},
		{"one that ends without an answer", `[ $method = create_disk ] && exit 1`, exitFailed, "a disk whose CID nobody knows"},
		{"one that cannot attach", `[ $method = attach_disk ] && fail NotSupported`, exitFailed, "NotSupported: bent (instance.vm_cid is not configured)"},
		{"one that attaches and then fails", `[ $method = attach_disk ] && { call >&2; fail CloudError; }`, exitFailed, "CloudError: bent"},
		{"one that attaches and says not where", `[ $method = attach_disk ] && { call >&2; answer '{"lun":5}'; }`, exitFailed, `an object with the keys ["lun"]`},
		{"one that answers the disk's own device", `[ $method = attach_disk ] && answer '"` + device + `"'`, exitFailed, "where another was before"},
		{"one that answers the disk's own directory", `[ $method = attach_disk ] && answer '"` + w.store + `"'`, exitFailed, "which is in use at"},
		{"one that answers a directory around it", `[ $method = attach_disk ] && answer '"` + w.dir + `"'`, exitFailed, "which is in use at"},
		{"a disk that is too small", `[ $method = create_disk ] && request=$(printf %s "$request" | sed 's/\[32,/[31,/')`, exitFailed, "31"},
	} {
		t.Run(c.name, func(*testing.T) {
			w.bent(c.bend)
			w.mustSay(w.run("verify", cid), c.code, "cannot verify snapshot", c.want)
			w.bent("")
			w.mustBeClear()
		})
	}
	for _, args := range [][]string{{"verify"}, {"verify", cid, "--latest"}, {"verify", "a", "b"}} {
		w.mustSay(w.run(args...), exitUsage)
	}
	w.mustSay(w.run("verify", "snap-9"), exitRefused, `unknown snapshot "snap-9"`)
	if s := w.snapshots()[0]; s.Verified != nil {
		t.Errorf("recorded is %+v", s.Verified)
	}
	if w.sum() != before {
		t.Error("the disk has changed")
	}
	w.mustSay(w.run("verify", cid), exitOK)
}

// mountSource is the device that is mounted at a place.
func mountSource(t testing.TB, at string) string {
	t.Helper()
	out, err := exec.Command("findmnt", "-no", "SOURCE", at).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestDiskThatDoesNotAppearIsSaidSo(t *testing.T) {
	w := newWorld(t, with("budgets: {verify: 2s}\n"))
	w.bend()
	w.start()
	w.take("--level", "freeze")
	w.bent(`[ $method = attach_disk ] && answer '"/dev/no-such"'`)
	w.mustSay(w.run("verify", "--latest"), exitFailed, `the disk does not appear at "/dev/no-such"`, "it took longer than its budget")
	w.bent("")
	w.mustBeClear()
}

func TestDiskThatCannotBeRemovedIsToldOfAndTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.bend()
	w.start()
	_, report := w.take("--level", "freeze")
	cid := report.Disks[0].SnapshotCID
	w.bent(`[ $method = detach_disk ] && fail CloudError`)
	r, v := w.verify(cid)
	w.mustSay(r, exitOK, "bent")
	if !v.OK || !strings.Contains(v.Left, "bent") {
		t.Errorf("got %+v", v)
	}
	w.mustSay(w.run("status"), exitOK, "NOT REMOVED: disk disk-", "bent")
	w.mustSay(w.run("verify", cid), exitBusy, "verify "+cid)
	w.mustSay(w.run("delete-snapshot", cid), exitBusy, "verify "+cid)
	w.end() // the next daemon knows
	w.bent(`[ $method = delete_disk ] && fail CloudError`)
	w.start()
	w.eventually("it is tried again", func() bool { return strings.Contains(w.run("status").out, "cannot delete disk") })
	w.bent("")
	w.eventually("it is removed", func() bool { return !strings.Contains(w.run("status").out, cid) })
	w.mustBeClear()
	w.mustSay(w.run("delete-snapshot", cid), exitOK)
}

func TestNewestCleanSnapshotIsVerifiedBySchedule(t *testing.T) {
	w := newWorld(t, with(fmt.Sprintf("verify: {schedule: %q}\n", everySecond)))
	w.start()
	_, first := w.take("--level", "freeze")
	w.take("--level", "none") // newer, and not clean
	w.eventually("it is verified", func() bool { return w.snapshots()[0].Verified != nil })
	if all := w.snapshots(); !all[0].Verified.OK || all[0].CID != first.Disks[0].SnapshotCID || all[1].Verified != nil {
		t.Errorf("snapshots are %+v", all)
	}
	w.mustSay(w.run("status"), exitOK, "Verified   ")
	w.end()
	w.configure()
	w.start() // it is known from before
	w.mustSay(w.run("status"), exitOK, "Verified   ")
	w.mustBeClear()
}

func TestLatestIsTheNewestWhereNoneIsClean(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.mustSay(w.run("verify", "--latest"), exitRefused, "there is no snapshot")
	w.take("--level", "none")
	_, second := w.take("--level", "none")
	_, v := w.verify("--latest")
	if v.CID != second.Disks[0].SnapshotCID || !v.OK || w.snapshots()[1].Clean {
		t.Errorf("got %+v", v)
	}
}

func TestFullStateDirectoryKeepsNoDisk(t *testing.T) {
	v := newVerifier(t)
	v.end()
	state := filepath.Join(v.dir, "state")
	kept := filepath.Join(v.dir, "kept")
	v.must(os.Rename(state, kept))
	v.must(os.Mkdir(state, 0o700))
	v.must(syscall.Mount("tmpfs", state, "tmpfs", 0, "size=2m"))
	t.Cleanup(func() { v.end(); v.must(syscall.Unmount(state, 0)) })
	v.must(exec.Command("cp", "-a", kept+"/.", state).Run())
	v.start()
	v.job("db", "head -c 4000000 /dev/zero >$dir/state/filler; exit 0")
	v.mustSay(v.run("verify", v.cid), exitOK, "NOT REMOVED", "no space left")
	v.mustSay(v.run("verify", v.cid), exitBusy, "verify "+v.cid)
	v.must(os.Remove(filepath.Join(state, "filler")))
	v.eventually("what was left is removed", func() bool { return !strings.Contains(v.run("status").out, v.cid) })
	v.mustBeClear()
	_ = exec.Command("sh", "-c", "head -c 4000000 /dev/zero >"+state+"/filler").Run()
	v.mustSay(v.run("verify", v.cid), exitFailed, "cannot verify snapshot", "no space left")
	v.must(os.Remove(filepath.Join(state, "filler")))
	v.mustBeClear()
	v.job("db", "exit 0")
	v.mustSay(v.run("verify", v.cid), exitOK)
}

// subvolume is a world whose disk is a subvolume of a btrfs: the CPI freezes that by itself.
func subvolume(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	fs, err := loopfs.Make(dir, "host", "btrfs", 128<<20)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, cid: "disk-1", store: filepath.Join(dir, "store"), root: filepath.Join(fs.Mount, "cpi"), cpi: filepath.Join(binaries, "local-cpi")}
	t.Cleanup(func() { w.must(fs.Close()) })
	disk := filepath.Join(w.root, "disks", w.cid)
	w.must(os.MkdirAll(filepath.Dir(disk), 0o700))
	w.must(exec.Command("btrfs", "subvolume", "create", disk).Run())
	w.must(os.Mkdir(w.store, 0o700))
	w.must(syscall.Mount(disk, w.store, "", syscall.MS_BIND, ""))
	t.Cleanup(func() { w.must(syscall.Unmount(w.store, 0)) })
	t.Cleanup(w.end)
	w.configure(func(text string) string {
		return strings.Replace(text, "context: {", "freezes_itself: true, context: {", 1) + "processes: {root: " + dir + "/vcap}\n"
	})
	return w
}

func TestSubvolumeIsVerified(t *testing.T) {
	v := &verifier{subvolume(t), ""}
	v.must(os.WriteFile(v.store+"/data", []byte("of the snapshot"), 0o600))
	v.job("db", `[ "$(cat $QUIESCED_MOUNT/data)" = "of the snapshot" ] && ! touch $QUIESCED_MOUNT/new && [ ! -e $dir/store/data ]`)
	v.start()
	v.take("--level", "freeze")
	v.must(os.WriteFile(v.store+"/data", []byte("of today"), 0o600))
	r, found := v.verify("--latest")
	v.mustSay(r, exitOK)
	if !found.OK || found.How != "reading every file, job db" {
		t.Errorf("got %+v", found)
	}
	left, err := os.ReadDir(filepath.Join(v.root, "disks"))
	v.must(err)
	if len(left) != 1 {
		t.Errorf("disks are left: %v", left)
	}
}
