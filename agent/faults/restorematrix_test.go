package faults_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/wire"
)

// Boundaries of a restore, in its order. Up to the exchange of the disks a daemon that
// comes later goes back to the disk before; after it, it goes on to the restored one.
var (
	beforeSwap = []string{
		"recorded", "before-make", "create_disk-told", "create_disk-done", "made", "attached", "disk-checked",
		"before-drain", "unmonitored", "before-mark", "marked", "before-stop", "stopped",
		"before-unmount", "unmounting", "unmounted", "detach_disk-told", "detach_disk-done", "detached",
		"told-apart", "before-swap",
	}
	afterSwap = []string{
		"swap_disks-told", "swap_disks-done", "swapped", "before-mount", "mounting", "mounted",
		"before-start", "start-unrecorded", "started", "unmarking", "unmarked", "disk-settled", "unreported", "reported",
	}
)

const (
	before   = string(agent.SideBefore)
	restored = string(agent.SideRestored)
)

func TestMatrixOfRestores(t *testing.T) {
	pool := newRestoreBeds(t)
	sure := []string{"made", "stopped", "unmounted", "before-swap", "swap_disks-told", "swapped", "mounted", "start-unrecorded", "disk-settled"}
	for side, points := range map[string][]string{before: beforeSwap, restored: afterSwap} {
		some := thinned(1, points)
		for i, point := range points {
			if slices.Contains(some, points[i]) || slices.Contains(sure, point) {
				pool.playRestore(t, side, point)
			}
		}
	}
}

// TestMatrixOfRestoreRecoveries has the daemon killed again while it makes good what the
// one before it left.
func TestMatrixOfRestoreRecoveries(t *testing.T) {
	pool := newRestoreBeds(t)
	for _, c := range []struct {
		side, first string
		seconds     []string
	}{
		{before, "stopped", []string{"before-discard", "discarded", "before-start"}},
		{before, "unmounted", []string{"before-mount", "mounted", "disk-settled"}},
		{before, "before-swap", []string{"attached", "detached", "mounting", "delete_disk-told", "delete_disk-done"}},
		{restored, "swapped", []string{"attached", "detached", "before-mount", "mounted", "start-unrecorded", "disk-settled"}},
	} {
		for _, second := range thinned(2, c.seconds) {
			pool.playRestore(t, c.side, c.first, second)
		}
	}
}

// playRestore has the daemon killed at one point after the other, and looks at what is
// left of the VM.
func (p *restoreBeds) playRestore(t *testing.T, side string, points ...string) {
	t.Helper()
	t.Run("killed at "+strings.Join(points, " and "), func(t *testing.T) {
		t.Parallel()
		b := p.borrow(t)
		cid, err := b.snapshot()
		if err != nil {
			t.Fatal(err)
		}
		id := agent.NewID()
		for i, point := range points {
			if err := b.arm(point); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				b.begin(cid, id)
			}
			if err := b.awaitHit(point, patience); err != nil {
				t.Fatal(err)
			}
			if i+1 < len(points) { // before anybody can come there
				err = b.arm(points[i+1])
			}
			if err := errors.Join(err, b.kill(), os.Remove(filepath.Join(b.points, point+".hit"))); err != nil {
				t.Fatal(err)
			}
		}
		b.letGo()
		if err := b.answers(); err != nil {
			t.Fatal(err)
		}
		report, err := b.report(id)
		if err != nil {
			t.Fatal(err)
		}
		b.check(t, side, report)
	})
}

// check asserts from outside which disk is in its place, and that all goes on.
func (b *restoreBed) check(t *testing.T, side string, report wire.Report) {
	t.Helper()
	if report.Restore.Side != side {
		t.Fatalf("the report says that the disk is %q, want %q: %+v", report.Restore.Side, side, report)
	}
	want := b.version
	if side == restored {
		want--
	}
	if mounts := b.mounts(); len(mounts) != 1 || !strings.Contains(mounts[0], "nosuid") || !strings.Contains(mounts[0], "noatime") {
		t.Errorf("mounted are %q", mounts)
	}
	if got, err := b.holds(); err != nil || got != want {
		t.Errorf("THE DISK HOLDS VERSION %d, want %d: %v", got, want, err)
	}
	if err := eventually("the service runs", b.runs); err != nil {
		t.Error(err)
	}
	for _, left := range []string{"bad", "monit/stopped", "monit/stopped.quiesced", "run/jobs-held.json"} {
		if text, err := os.ReadFile(b.path(left)); err == nil {
			t.Errorf("%s is there: %s", left, text)
		}
	}
	b.checkOther(t, side, report)
	if loops := loopsOf(filepath.Join(b.disks, "disk-1.img")); len(loops) != 1 {
		t.Errorf("the disk is attached as %q", loops)
	}
	b.version = want
}

// checkOther asserts that the disk before is kept whole where the restored one is in its
// place, and that there is no other disk where it is not.
func (b *restoreBed) checkOther(t *testing.T, side string, report wire.Report) {
	t.Helper()
	images, _ := filepath.Glob(filepath.Join(b.disks, "*.img"))
	if side == before {
		if len(images) != 1 || report.Restore.Other != "" {
			t.Errorf("disks are %q, the report has %+v", images, report.Restore)
		}
		return
	}
	if got, err := b.other(report.Restore.Other); err != nil || got != b.version {
		t.Errorf("THE DISK BEFORE HOLDS VERSION %d, want %d: %v", got, b.version, err)
	}
	for _, image := range images {
		if name := filepath.Base(image); name != "disk-1.img" {
			_ = os.Remove(image)
			_ = os.Remove(strings.TrimSuffix(image, ".img") + ".json")
		}
	}
	if len(images) != 2 {
		t.Errorf("disks are %q", images)
	}
}

// restoreFaults are what goes wrong without the daemon's end.
var restoreFaults = []struct {
	name    string
	point   string // at which the test acts, "" for before the restore begins
	act     func(b *restoreBed) error
	side    string
	outcome string
	says    string
}{
	{"the CPI makes no disk", "", fails("create_disk"), before, "failed", "cannot make a disk from snapshot"},
	{"the CPI attaches no disk", "", fails("attach_disk"), before, "failed", "cannot attach disk"},
	{"the CPI does not detach the disk", "unmounted", fails("detach_disk"), before, "failed", `cannot detach disk "disk-1"`},
	{"the CPI attaches neither disk after that", "unmounted", fails("attach_disk"), before, "failed", `cannot attach disk "disk-1"`},
	{"the CPI does not exchange the disks", "before-swap", fails("swap_disks"), before, "failed", "cannot exchange disk"},
	{"the snapshot is damaged", "made", damages("disk-*-*.img", 2), before, "failed", "is damaged (e2fsck)"},
	{"the disk is in use", "before-unmount", (*restoreBed).use, before, "failed", "has its working directory there"},
	{"the restored disk cannot be mounted", "swapped", damages("disk-1.img", 0), before, "failed", "the restored disk is no good, and the one before was put back"},
	{"the service does not run on the restored data", "", (*restoreBed).refuse, before, "failed", "the restored disk is no good, and the one before was put back"},
	{"somebody cancels it before the exchange", "unmounted", (*restoreBed).cancel, before, "cancelled", "the run was cancelled"},
	{"somebody cancels it after the exchange", "swapped", (*restoreBed).cancel, restored, "succeeded", ""},
	{"the daemon is to end before the exchange", "stopped", (*restoreBed).terminate, before, "failed", "the daemon is stopping"},
	{"the daemon is to end after the exchange", "swapped", (*restoreBed).terminate, restored, "succeeded", ""},
}

func fails(method string) func(*restoreBed) error {
	return func(b *restoreBed) error { return os.WriteFile(b.path("fail."+method), nil, 0o600) }
}

// damages overwrites much of an image, from so many times 64 KiB on.
func damages(pattern string, from int) func(*restoreBed) error {
	return func(b *restoreBed) error {
		images, _ := filepath.Glob(filepath.Join(b.disks, pattern))
		if len(images) != 1 {
			return fmt.Errorf("images are %q", images)
		}
		return exec.Command("dd", "if=/dev/urandom", "of="+images[0], "bs=64k", "count=20", "conv=notrunc", fmt.Sprintf("seek=%d", from)).Run()
	}
}

// use has a process work in the disk for longer than it is waited for.
func (b *restoreBed) use() error {
	cmd := exec.Command("sleep", "7")
	cmd.Dir = b.store
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }()
	return nil
}

func (b *restoreBed) refuse() error {
	return os.WriteFile(b.path(fmt.Sprintf("refuse.%d", b.version-1)), nil, 0o600)
}

// cancel returns when the daemon has been told, which answers when all is set going.
func (b *restoreBed) cancel() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = b.vm.client.Cancel(ctx, b.id)
	return nil
}

func (b *restoreBed) terminate() error {
	err := b.daemon.Process.Signal(syscall.SIGTERM)
	b.letGo()
	<-b.ended
	return errors.Join(err, b.start())
}

func TestMatrixOfRestoreFaults(t *testing.T) {
	pool := newRestoreBeds(t)
	for _, c := range restoreFaults {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := pool.borrow(t)
			cid, err := b.snapshot()
			if err != nil {
				t.Fatal(err)
			}
			if c.point == "" {
				err = c.act(b)
				b.begin(cid, agent.NewID())
			} else {
				err = b.arm(c.point)
				b.begin(cid, agent.NewID())
				err = errors.Join(err, b.awaitHit(c.point, patience), c.act(b))
				b.letGo()
			}
			if err := errors.Join(err, b.answers()); err != nil {
				t.Fatal(err)
			}
			report, err := b.report(b.id)
			if err != nil {
				t.Fatal(err)
			}
			if report.Outcome != c.outcome || !strings.Contains(report.Error, c.says) {
				t.Errorf("the report is %+v, want %s and %q", report, c.outcome, c.says)
			}
			b.check(t, c.side, report)
		})
	}
}

// A disk that cannot be put in its place keeps the jobs down and everybody else out, and
// is tried again.
func TestADiskThatIsNotInItsPlaceIsTriedAgain(t *testing.T) {
	t.Parallel()
	b := newRestoreBeds(t).borrow(t)
	cid, err := b.snapshot()
	if err == nil {
		err = b.arm("swapped")
	}
	if err != nil {
		t.Fatal(err)
	}
	b.begin(cid, agent.NewID())
	err = errors.Join(b.awaitHit("swapped", patience), exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", b.store).Run())
	b.letGo()
	report, reportErr := b.report(b.id)
	if err := errors.Join(err, reportErr); err != nil {
		t.Fatal(err)
	}
	if report.Outcome != "not_resumed" || report.Restore.Side != "" || !strings.Contains(report.Error, "tmpfs on tmpfs is mounted there") {
		t.Errorf("the report is %+v", report)
	}
	status, err := b.status()
	if err != nil || !slices.Contains(status.NotGoing, "disk disk-1 is not mounted at "+b.store) {
		t.Errorf("the status is %+v, %v", status, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := b.vm.client.Take(ctx, agent.Request{Level: agent.LevelNone}); api.KindOf(err) != api.KindRefused {
		t.Errorf("a run began beside it: %v", err)
	}
	if err := exec.Command("umount", b.store).Run(); err != nil {
		t.Fatal(err)
	}
	if err := b.vm.client.Unyield(ctx); err != nil { // which has it tried at once
		t.Fatal(err)
	}
	if err := eventually("the disk is settled", func() bool { _, err := os.Stat(b.path("run", "jobs-held.json")); return err != nil }); err != nil {
		t.Fatal(err)
	}
	report.Restore.Side, report.Restore.Other = before, ""
	b.check(t, before, report)
}
