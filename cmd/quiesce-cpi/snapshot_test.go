package main

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/cpi/front"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

func snapshotOf(t testing.TB, request string) front.Snapshot {
	t.Helper()
	s, err := front.ParseSnapshot([]byte(request))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// needsRecovery says whether an ext4 in an image has a journal that has to be
// replayed, as one that was not frozen has.
func needsRecovery(t *testing.T, image string) bool {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var features [4]byte
	if _, err := f.ReadAt(features[:], 1024+0x60); err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint32(features[:])&0x4 != 0
}

// A director calls info, and then snapshot_disk for every disk of the instance, be it
// attached or not.
func TestADirectorsSnapshotsAreClean(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "", "")
	w.cpi = filepath.Join(binaries, "local-cpi")
	disks := filepath.Join(w.shared, "disks")
	w.must(os.Mkdir(disks, 0o755))
	w.must(os.Chmod(w.shared, 0o755))
	w.must(os.Chmod(w.disk.Image, 0o644))
	w.must(os.Symlink(w.disk.Image, filepath.Join(disks, "disk-1.img")))
	w.must(os.WriteFile(filepath.Join(disks, "disk-2.img"), []byte("inactive"), 0o644))
	w.must(os.WriteFile(filepath.Join(w.disk.Mount, "data"), []byte("written just before"), 0o644))
	if out, err := exec.Command("chown", "-R", "64242:64242", disks).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	a := w.call(`{"method":"info","arguments":[],"context":{"director_uuid":"` + directorUUID + `","request_id":"cpi-1"}}`)
	if _, err := cpi.ParseResponse([]byte(a.stdout)); err != nil || a.stderr != "" {
		t.Fatalf("info: %v; stderr %q", err, a.stderr)
	}
	cids := map[string]string{}
	for _, disk := range []string{"disk-1", "disk-2"} {
		a = w.call(w.request(disk))
		answer, err := cpi.ParseResponse([]byte(a.stdout))
		w.must(err)
		cids[disk], err = cpi.SnapshotCID(disk, answer.Result)
		w.must(err)
		if disk == "disk-1" {
			w.contains("stderr", a.stderr, `snapshot "`+cids[disk]+`" of disk "disk-1"`, "at rest (freeze)")
		}
	}
	w.mustThaw()
	w.mustCatalogue(cids["disk-1"], true)
	image := func(disk string) string { return filepath.Join(w.shared, "snapshots", cids[disk]+".img") }
	if needsRecovery(t, image("disk-1")) {
		t.Error("the snapshot was taken of a filesystem that was not frozen")
	}
	if !needsRecovery(t, w.disk.Image) {
		t.Error("the disk itself does not look like one that is mounted: nothing was tested")
	}
	if text, err := os.ReadFile(image("disk-2")); string(text) != "inactive" {
		t.Errorf("the inactive disk's snapshot is %q, %v", text, err)
	}
}

func TestTheDiskIsFrozenOnlyToThePointInTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `touch $D/called
await point
echo "I, snapshot 'snap-1' of volume 'disk-1' created" >&2
await answer
`+answered("snap-1"), "release_on_stderr: aws\nadd_metadata: true")
	c := w.begin(w.request("disk-1"))
	w.eventually("the CPI is called", func() bool { return w.exists("called") })
	if !w.frozen() {
		t.Error("the CPI was called and the disk is not frozen")
	}
	w.signalCPI("point")
	took := w.eventually("the disk is thawed", func() bool { return !w.frozen() })
	t.Logf("thawed %v after the point in time", took)
	select {
	case <-c.ended:
		t.Fatal("the CPI ended: nothing was tested")
	default:
	}
	w.signalCPI("answer")
	w.mustAnswer(w.endOf(c), "snap-1")
	w.mustCatalogue("snap-1", true)
	request, err := os.ReadFile(filepath.Join(w.shared, "request"))
	w.must(err)
	w.contains("the request", string(request), `"agent_id":"spoofed","quiesced_level":"freeze","quiesced_run":"`+w.snapshots()[0].RunID+`"}],"context"`)
}

func TestALongCallRenewsItsLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "sleep 3\n"+answered("snap-1"), "lease: 1s")
	w.mustAnswer(w.call(w.request("disk-1")), "snap-1")
	w.mustThaw()
	w.mustCatalogue("snap-1", true)
}

func TestALevelBelowAFreezeIsWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, answered("snap-1"), "levels: [{deployment: cf, job: db, level: sync}]")
	alerts := w.alerts()
	a := w.call(w.request("disk-1"))
	w.mustAnswer(a, "snap-1")
	w.contains("stderr", a.stderr, "at rest (sync)")
	w.mustCatalogue("snap-1", false)
	if all := alerts(); len(all) > 0 {
		t.Errorf("alerts: %q", all)
	}
}

// A director calls for each disk by itself. Jobs that are locked for the first call stay so
// for the next.
func TestJobsStayAtRestFromOneDiskToTheNext(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "disk=$(grep -o 'disk-[12]' $D/request)\ncp $D/locks $D/locks-$disk\n"+answered("snap-'$disk'"), "level: lock")
	w.end()
	second, err := loopfs.Make(w.dir, "second", "ext4", 16<<20)
	w.must(err)
	t.Cleanup(func() { w.end(); w.must(second.Close()) })
	stopThaw, err := loopfs.ThawAfter(second.Mount, safetyThaw)
	w.must(err)
	t.Cleanup(stopThaw)
	w.disks = ", {cid: disk-2, mounts: [" + second.Mount + "]}"
	for name, word := range map[string]string{"pre-backup-lock": "lock", "post-backup-unlock": "unlock"} {
		script := filepath.Join(w.dir, "jobs", "db", "bin", "bbr", name)
		w.must(os.MkdirAll(filepath.Dir(script), 0o755))
		w.must(os.WriteFile(script, []byte("#!/bin/sh\necho "+word+" >>"+w.shared+"/locks\nchmod 644 "+w.shared+"/locks\n"), 0o755))
	}
	w.start(w.bus.URL("agent"))
	w.eventually("the daemon is on the bus", w.onBus)
	locks := func(name string) string {
		text, err := os.ReadFile(filepath.Join(w.shared, name))
		w.must(err)
		return string(text)
	}
	for _, disk := range []string{"disk-1", "disk-2"} {
		a := w.call(w.request(disk))
		w.contains("stdout", a.stdout, `"result":"snap-`+disk+`"`)
		w.contains("stderr", a.stderr, "at rest (lock)")
		if got := locks("locks-" + disk); got != "lock\n" {
			t.Errorf("when %s was snapshotted the jobs had seen %q", disk, got)
		}
	}
	w.eventually("the jobs are unlocked", func() bool { return locks("locks") == "lock\nunlock\n" })
	w.mustThaw()
	for _, one := range w.snapshots() {
		if !one.Clean || one.CID != "snap-"+one.DiskCID {
			t.Errorf("the catalogue has %+v", one)
		}
	}
}

func TestTheExitStatusOfASnapshotIsTheCPIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, ". $D/how", "")
	for how, want := range map[string]syscall.WaitStatus{
		"exit 0": 0, "exit 3": 3 << 8,
		"kill -TERM $$": syscall.WaitStatus(syscall.SIGTERM), "kill -KILL $$": syscall.WaitStatus(syscall.SIGKILL),
		"kill -SEGV $$": (128 + 11) << 8, "kill -USR1 $$": (128 + 10) << 8,
	} {
		w.must(os.WriteFile(filepath.Join(w.shared, "how"), []byte(answered("snap-"+how[len(how)-4:])+"\n"+how+"\n"), 0o644))
		a := w.call(w.request("disk-1"))
		if got := a.state.Sys().(syscall.WaitStatus); got != want {
			t.Errorf("%s: the status is %x, want %x", how, got, want)
		}
		w.contains("stdout", a.stdout, `"result":"snap-`)
	}
	w.mustThaw()
}

// It is asked again and again meanwhile, and is one hold all the same.
func TestAVMThatComesToRestSlowlyIsWaitedFor(t *testing.T) {
	for name, of := range map[string]func(string) string{"over the bus": strings.Clone, "over the socket": ofSelf} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, answered("snap-1"), "lease: 2s\nno_daemon_timeout: 500ms")
			w.slowRest()
			c := w.begin(of(w.request("disk-1")))
			w.eventually("the VM is brought to rest", func() bool { return w.exists("bringing") })
			time.Sleep(3 * time.Second) // longer than the lease, and than each call
			w.signalCPI("rest")
			w.mustAnswer(w.endOf(c), "snap-1")
			w.mustThaw()
			w.mustCatalogue("snap-1", true)
		})
	}
}
