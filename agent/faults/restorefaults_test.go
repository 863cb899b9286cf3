package faults_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/wire"
)

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
	{"the new disk is gone before the exchange", "before-swap", (*restoreBed).lose, before, "failed", "cannot exchange disk"},
	{"the CPI says that it has exchanged them", "before-swap", lies("swap_disks", ""), before, "failed", "it has not"},
	{"the CPI says that it has made the disk that is there", "", lies("create_disk", `"disk-1"`), before, "failed", "the CID of a disk that was there before"},
	{"the CPI attaches the new disk where the one before is", "", (*restoreBed).attachWrongly, before, "failed", "where another was before"},
	{"a post-start script fails on the restored disk", "", (*restoreBed).failPostStart, restored, "failed", "post-start"},
	{"the snapshot is damaged", "made", damages("disk-*-*.img", 2), before, "failed", "is damaged (e2fsck)"},
	{"the disk is in use", "before-unmount", (*restoreBed).use, before, "failed", "has its working directory there"},
	{"the restored disk cannot be mounted", "swapped", damages("disk-1.img", 0), before, "failed", "the restored disk is no good, and the one before was put back"},
	{"the service does not run on the restored data", "", (*restoreBed).refuse, before, "failed", "the restored disk is no good, and the one before was put back"},
	{"the daemon is killed when the service did not run on them", "going-back", (*restoreBed).kill, before, "failed", "the daemon ended"},
	{"somebody cancels it before the exchange", "unmounted", (*restoreBed).cancel, before, "cancelled", "the run was cancelled"},
	{"somebody cancels it after the exchange", "swapped", (*restoreBed).cancel, restored, "succeeded", ""},
	{"the daemon is to end before the exchange", "stopped", (*restoreBed).terminate, before, "failed", "the daemon is stopping"},
	{"the daemon is to end after the exchange", "swapped", (*restoreBed).terminate, restored, "succeeded", ""},
}

func fails(method string) func(*restoreBed) error {
	return func(b *restoreBed) error { return os.WriteFile(b.path("fail."+method), nil, 0o600) }
}

func lies(method, result string) func(*restoreBed) error {
	return func(b *restoreBed) error { return os.WriteFile(b.path("lie."+method), []byte(result), 0o600) }
}

// attachWrongly has the CPI answer once with the device of the persistent disk.
func (b *restoreBed) attachWrongly() error {
	loops := loopsOf(filepath.Join(b.disks, "disk-1.img"))
	if len(loops) != 1 {
		return fmt.Errorf("the disk is attached as %q", loops)
	}
	return lies("attach_disk", fmt.Sprintf(`{"path":%q}`, loops[0]))(b)
}

// failPostStart has a script fail once.
func (b *restoreBed) failPostStart() error {
	path := b.path("vcap", "jobs", "db", "bin", "post-start")
	text := fmt.Sprintf("#!/bin/sh\n! mv %[1]s.fail %[1]s.failed 2>/dev/null\n", path)
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path+".fail", nil, 0o600), executable(path, text))
}

// executable writes a script. No other child must be begun meanwhile, which would have
// it open for writing.
func executable(path, text string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, []byte(text), 0o755)
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
	cmd := exec.Command("sleep", "15")
	cmd.Dir = b.store
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }()
	return nil
}

func (b *restoreBed) refuse() error {
	return os.WriteFile(b.path(fmt.Sprintf("refuse.db.%d", b.version-1)), nil, 0o600)
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
	t.Parallel()
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
				if c.point == "going-back" {
					err = errors.Join(err, b.refuse())
				}
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
	b.heldAt(t, "swapped")
	err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", b.store).Run()
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
	b.check(t, before, b.settled(t))
}

// What became of the disk after the run's end is told as if it had come of the run.
func TestARestoreThatIsSettledByALaterTryIsOne(t *testing.T) {
	t.Parallel()
	b := newRestoreBeds(t).borrow(t)
	cid := b.heldAt(t, "swapped")
	err := fails("attach_disk")(b)
	b.letGo()
	report, reportErr := b.report(b.id)
	if err := errors.Join(err, reportErr); err != nil || report.Outcome != "not_resumed" || report.Restore.Side != "" {
		t.Fatalf("the report is %+v, %v", report, err)
	}
	report = b.settled(t)
	status, err := b.status()
	if err != nil || status.Restored == nil || !reflect.DeepEqual(status.Restored.Restore, report.Restore) {
		t.Errorf("the status is %+v, %v", status, err)
	}
	all, err := b.vm.client.Snapshots(t.Context())
	if at := slices.IndexFunc(all, func(s wire.Snapshot) bool { return s.CID == cid }); err != nil || at < 0 ||
		strings.Count(all[at].Note, "the disk before is kept as "+report.Restore.Other) != 1 {
		t.Errorf("the snapshots are %+v, %v", all, err)
	}
	b.check(t, restored, report)
}

// lose has somebody delete the disk that was made, or was exchanged for it.
func (b *restoreBed) lose() error {
	images, _ := filepath.Glob(filepath.Join(b.disks, "disk-*-*.img"))
	if len(images) != 1 {
		return fmt.Errorf("images are %q", images)
	}
	return os.Remove(images[0])
}

// The disk that is left is all there is: jobs are not kept down for want of another.
func TestARestoreGoesOnWithTheOneDiskThatIsLeft(t *testing.T) {
	t.Parallel()
	b := newRestoreBeds(t).borrow(t)
	b.heldAt(t, "swapped")
	err := b.lose()
	b.letGo()
	report, reportErr := b.report(b.id)
	if err := errors.Join(err, reportErr, eventually("the services run", b.runs)); err != nil {
		t.Fatal(err)
	}
	if report.Outcome != "succeeded" || report.Restore.Side != restored || report.Restore.Other != "" ||
		!strings.Contains(strings.Join(report.Notes, "; "), "is not there any more") {
		t.Errorf("the report is %+v with %+v", report, report.Restore)
	}
	if got, err := b.holds(); err != nil || got != b.version-1 {
		t.Errorf("THE DISK HOLDS VERSION %d, want %d: %v", got, b.version-1, err)
	}
}

func TestADiskIsPutInItsPlaceWhereTheStateDirectoryIsFull(t *testing.T) {
	t.Parallel()
	b := newRestoreBeds(t).borrow(t)
	b.heldAt(t, "swapped")
	runs := b.path("state", "runs")
	err := exec.Command("mount", "-t", "tmpfs", "-o", "nr_inodes=1", "tmpfs", runs).Run()
	b.letGo()
	report, reportErr := b.report(b.id)
	if err := errors.Join(err, reportErr, exec.Command("umount", runs).Run()); err != nil || report.Outcome != "succeeded" {
		t.Fatalf("%v: the report is %+v", err, report)
	}
	b.check(t, restored, report)
	if left, err := filepath.Glob(b.path("run", "*calls-*")); err != nil || len(left) > 0 {
		t.Errorf("left are %q, %v", left, err)
	}
}

// settled has a disk that is not in its place tried again at once, and returns the
// report when it is.
func (b *restoreBed) settled(t *testing.T) (report wire.Report) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var failed *api.Error // of the run that is remembered: it has failed as before
	err := b.vm.client.Unyield(ctx)
	if err == nil {
		err = eventually("the disk is settled", func() bool {
			time.Sleep(50 * time.Millisecond) // each question is logged
			_, err := b.vm.client.Report(ctx, b.id)
			return errors.As(err, &failed) && failed.Report != nil && failed.Report.Restore.Side != ""
		})
	}
	report, recordErr := b.report(b.id)
	if err := errors.Join(err, recordErr); err != nil || !reflect.DeepEqual(report.Restore, failed.Report.Restore) {
		t.Fatalf("%v: the report has %+v, the record %+v", err, failed, report.Restore)
	}
	return report
}
