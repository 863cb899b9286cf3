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
	"testing"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
	"github.com/quiesced/quiesced/quiesce/loopfs"
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
	t.Parallel()
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
	t.Parallel()
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
	want := 2
	if side == before {
		want = 1
	}
	if len(images) != want || side == before && report.Restore.Other != "" {
		t.Errorf("disks are %q, the report has %+v", images, report.Restore)
	}
	if side == restored {
		if got, err := b.other(report.Restore.Other); err != nil || got != b.version {
			t.Errorf("THE DISK BEFORE HOLDS VERSION %d, want %d: %v", got, b.version, err)
		}
	}
	for _, image := range images {
		if name := filepath.Base(image); name != "disk-1.img" {
			for _, loop := range loopsOf(image) { // of a case that failed
				_ = exec.Command("losetup", "-d", loop).Run()
			}
			_ = os.Remove(image)
			_ = os.Remove(strings.TrimSuffix(image, ".img") + ".json")
		}
	}
}

// TestMatrixOfRestoresAndReboots has the VM rebooted in the middle: what was in memory is gone, and
// the disk was mounted by its CID, as fstab does, before the daemon is there, or was not.
func TestMatrixOfRestoresAndReboots(t *testing.T) {
	t.Parallel()
	pool := newRestoreBeds(t)
	for _, c := range []struct {
		point, side string
		fstab       bool
	}{
		{"unmounted", before, true}, {"before-swap", before, false}, {"before-swap", before, true},
		{"swapped", restored, false}, {"swapped", restored, true}, {"mounted", restored, true},
	} {
		t.Run(fmt.Sprintf("at %s, mounted by then: %v", c.point, c.fstab), func(t *testing.T) {
			t.Parallel()
			b := pool.borrow(t)
			b.heldAt(t, c.point)
			if err := b.reboot(c.fstab); err != nil {
				t.Fatal(err)
			}
			report, err := b.report(b.id)
			if err != nil {
				t.Fatal(err)
			}
			b.check(t, c.side, report)
		})
	}
}

// reboot loses what a reboot does.
func (b *restoreBed) reboot(fstab bool) error {
	b.cutOff()
	var errs []error
	if len(b.mounts()) > 0 {
		errs = append(errs, loopfs.Unmount(b.store))
	}
	images, _ := filepath.Glob(filepath.Join(b.disks, "*.img"))
	for _, image := range images {
		for _, loop := range loopsOf(image) {
			errs = append(errs, exec.Command("losetup", "-d", loop).Run())
		}
	}
	errs = append(errs, os.RemoveAll(b.path("run")), os.MkdirAll(b.store, 0o755))
	if fstab {
		errs = append(errs, loopfs.Mount(filepath.Join(b.disks, "disk-1.img"), b.store, "nosuid", "noatime"))
	}
	return errors.Join(append(errs, b.start(), b.answers())...)
}

// TestARestoreSurvivesTheLossOfTheStateDirectory has what lies beside the socket tell of it.
func TestARestoreSurvivesTheLossOfTheStateDirectory(t *testing.T) {
	t.Parallel()
	b := newRestoreBeds(t).borrow(t)
	b.heldAt(t, "swapped")
	b.cutOff()
	if err := errors.Join(os.RemoveAll(b.path("state")), b.start(), b.answers()); err != nil {
		t.Fatal(err)
	}
	report, err := b.report(b.id)
	if err != nil {
		t.Fatal(err)
	}
	b.check(t, restored, report)
}

// A director that takes the jobs over in the middle gets the disk back in its place, and
// services as they are.
func TestADirectorThatTakesTheJobsGetsTheDisk(t *testing.T) {
	t.Parallel()
	b := newRestoreBeds(t).borrow(t)
	b.heldAt(t, "unmounted")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	yielded := make(chan error, 1)
	go func() { yielded <- b.vm.client.Yield(ctx) }()
	if err := eventually("the daemon is told", func() bool { s, err := b.status(); return err == nil && s.Yielded != nil }); err != nil {
		t.Fatal(err)
	}
	b.letGo()
	report, err := b.report(b.id)
	if err := errors.Join(err, <-yielded); err != nil {
		t.Fatal(err)
	}
	if report.Outcome != "failed" || !report.Yielded || report.Restore.Side != before {
		t.Errorf("the report is %+v, %+v", report, report.Restore)
	}
	if got, err := b.holds(); err != nil || got != b.version || b.runs() {
		t.Errorf("the disk holds version %d, %v; the service runs: %v", got, err, b.runs())
	}
	if err := errors.Join(b.vm.client.Unyield(ctx), eventually("the service runs", b.runs)); err != nil {
		t.Fatal(err)
	}
}
