package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/httpapi"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// The boundaries of a verification, in their order.
var verifyPoints = []string{
	"scratch-unrecorded", "scratch-recorded", "scratch-made", "scratch-attached", "scratch-checked",
	"scratch-asked", "scratch-concluded", "scratch-detached", "scratch-deleted",
}

const verifyConfig = `enable_snapshots: true
state_dir: %[1]s/state
listen: {socket: %[1]s/run/q.sock, metrics: ""}
instance: {deployment: cf, job: db, index: 0, id: inst-1, agent_id: agent-1}
disks: [{cid: disk-1, mounts: [%[2]s]}]
cpi: {path: %[3]s/local-cpi, context: {root: %[1]s/cpi}}
processes: {root: %[1]s/vcap}
levels: {manual: freeze}
catalogue: {copy: false} # the disk must stay as it is
`

// verified is a VM with a snapshot, of which a daemon is at work on the verification.
type verified struct {
	*vm
	t     *testing.T
	image string // of the disk
	disk  string // its mount point
	cid   string // of the snapshot
	sum   []byte // the disk, before
}

func TestMatrixOfVerifications(t *testing.T) {
	for _, point := range verifyPoints {
		for name, signal := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "terminated": syscall.SIGTERM} {
			if *thin > 1 && signal == syscall.SIGTERM && point != "scratch-recorded" && point != "scratch-attached" {
				continue
			}
			t.Run(name+" at "+point, func(t *testing.T) {
				t.Parallel()
				v := newVerified(t)
				v.strike(point, signal)
				v.mustBeClear()
				v.mustVerify()
				v.mustBeClear()
			})
		}
	}
}

func newVerified(t *testing.T) *verified {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "faults-verify-")
	v := &verified{vm: &vm{dir: dir, points: filepath.Join(dir, "points")}, t: t, disk: filepath.Join(dir, "store")}
	v.must(err)
	t.Cleanup(func() { v.must(os.RemoveAll(dir)) })
	v.image = filepath.Join(dir, "cpi", "disks", "disk-1.img")
	v.client = api.Client{Caller: httpapi.NewClient(filepath.Join(dir, "run", "q.sock"))}
	script := filepath.Join(dir, "vcap/jobs/db/bin/quiesced/verify")
	for _, own := range []string{v.points, filepath.Dir(v.image), filepath.Dir(script)} {
		v.must(os.MkdirAll(own, 0o755))
	}
	v.must(os.WriteFile(script, []byte("#!/bin/sh\ncat $QUIESCED_MOUNT/data\n"), 0o755))
	v.must(os.WriteFile(v.image, nil, 0o600))
	v.must(os.Truncate(v.image, sizes["ext4"]))
	v.must(loopfs.Format(v.image, "ext4"))
	v.must(loopfs.Mount(v.image, v.disk))
	t.Cleanup(func() { v.must(loopfs.Unmount(v.disk)) })
	v.thawed, err = loopfs.ThawAfter(v.disk, 2*patience)
	v.must(err)
	v.must(os.WriteFile(filepath.Join(v.disk, "data"), []byte("of the disk"), 0o600))
	v.must(os.WriteFile(filepath.Join(dir, "q.yml"), fmt.Appendf(nil, verifyConfig, dir, v.disk, binaries), 0o600))
	v.must(errors.Join(v.start(), v.answers()))
	t.Cleanup(func() { v.must(v.close()) })
	v.snapshot()
	return v
}

func (v *verified) must(err error) {
	v.t.Helper()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(v.dir, "log"))
		v.t.Fatalf("%v\n%s", err, log)
	}
}

func (v *verified) snapshot() {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), patience)
	defer cancel()
	id, err := v.client.Take(ctx, agent.Request{})
	v.must(err)
	report, err := v.client.Report(ctx, id)
	v.must(err)
	v.cid = report.Disks[0].SnapshotCID
	v.must(exec.Command("sync", "-f", v.disk).Run())
	v.sum, err = os.ReadFile(v.image)
	v.must(err)
}

// strike ends the daemon when its verification comes to a point, and starts the next one.
func (v *verified) strike(point string, signal syscall.Signal) {
	v.t.Helper()
	v.must(v.arm(point))
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, _ = v.client.Caller.Call(ctx, "verify_snapshot", v.cid)
	}()
	hit := filepath.Join(v.points, point+".hit")
	v.must(eventually("the daemon comes to "+point, func() bool { _, err := os.Stat(hit); return err == nil }))
	<-answered
	v.must(v.daemon.Process.Signal(signal))
	if signal != syscall.SIGKILL {
		v.must(os.Remove(hit))
	}
	select {
	case <-v.ended:
	case <-time.After(patience):
		v.t.Fatal("the daemon does not end")
	}
	_ = os.Remove(hit)
	v.must(errors.Join(v.start(), v.answers()))
	v.must(eventually("what was left is removed", func() bool {
		s, err := v.status()
		return err == nil && s.Verifying == nil
	}))
}

// mustBeClear asserts that there is nothing of a verification, and that the disk is as it was.
func (v *verified) mustBeClear() {
	v.t.Helper()
	images, err := filepath.Glob(filepath.Join(v.dir, "cpi", "disks", "*.img"))
	v.must(err)
	loops, err := exec.Command("losetup", "--list", "--noheadings", "--output", "BACK-FILE").Output()
	v.must(err)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	v.must(err)
	left, err := filepath.Glob(filepath.Join(v.dir, "state", "verification*"))
	v.must(err)
	if n := strings.Count(string(loops), v.dir); len(images) != 1 || n != 1 || len(left) > 0 || strings.Count(string(mounts), v.dir) != 1 {
		v.t.Errorf("left are %q, %q, %d loop devices, mounts:\n%s", images, left, n, mounts)
	}
	v.must(exec.Command("sync", "-f", v.disk).Run())
	if now, err := os.ReadFile(v.image); err != nil || !bytes.Equal(now, v.sum) {
		v.t.Errorf("the disk has changed: %v", err)
	}
}

// mustVerify asserts that the snapshot can be verified still.
func (v *verified) mustVerify() {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), patience)
	defer cancel()
	found, err := v.client.Verify(ctx, "")
	v.must(err)
	if !found.OK || found.CID != v.cid || found.How != "e2fsck, job db" || found.Left != "" {
		v.t.Errorf("got %+v", found)
	}
}
