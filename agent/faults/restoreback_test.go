package faults_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestMatrixOfRestoresThatGoBack has the service not run on the restored data, and the
// daemon killed while it puts the disk back that was there before: both disks have been
// mounted and were changed by then.
func TestMatrixOfRestoresThatGoBack(t *testing.T) {
	pool := newRestoreBeds(t)
	for _, point := range []string{"before-swap", "mounted"} {
		t.Run("killed at "+point, func(t *testing.T) {
			t.Parallel()
			b := pool.borrow(t)
			b.goBack(t, func() error { return b.arm(point) })
			if err := errors.Join(b.awaitHit(point, patience), b.kill()); err != nil {
				t.Fatal(err)
			}
			b.letGo()
			if err := b.answers(); err != nil {
				t.Fatal(err)
			}
			report, err := b.report(b.id)
			if err != nil {
				t.Fatal(err)
			}
			b.check(t, before, report)
		})
	}
}

// goBack begins a restore of data on which the service does not run, and does something
// before the disk of before is put back.
func (b *restoreBed) goBack(t *testing.T, act func() error) {
	t.Helper()
	b.heldAt(t, "going-back", b.refuse)
	err := errors.Join(act(), os.Remove(filepath.Join(b.points, "going-back.hit")))
	if err != nil {
		t.Fatal(err)
	}
}

func TestACPIThatDoesNotExchangeTheDisksBackIsAskedAgainLater(t *testing.T) {
	t.Parallel()
	b := newRestoreBeds(t).borrow(t)
	b.goBack(t, func() error { return lies("swap_disks", "")(b) })
	report, err := b.report(b.id)
	if err != nil {
		t.Fatal(err)
	}
	if report.Outcome != "not_resumed" || !strings.Contains(report.Error, "it has exchanged the disks, and it has not") {
		t.Errorf("the report is %+v", report)
	}
	b.check(t, before, b.settled(t))
}

// Where the socket does not lie on a tmpfs, what is kept beside it may be there after a
// power cut, and be older than the record, which is written through: by it the disk that
// was there before would be the one to delete.
func TestWhatOutlivedARebootBesideTheSocketIsNotBelieved(t *testing.T) {
	t.Parallel()
	b := newRestoreBeds(t).borrow(t)
	b.heldAt(t, "before-unmount", func() error { return b.arm("swapped") })
	old, err := os.ReadFile(b.path("run", "jobs-held.json"))
	err = errors.Join(err, os.Remove(filepath.Join(b.points, "before-unmount.hit")), b.awaitHit("swapped", patience))
	b.cutOff()
	stale := regexp.MustCompile(`"boot":"[^"]*"`).ReplaceAll(old, []byte(`"boot":"the one before"`))
	err = errors.Join(err, os.WriteFile(b.path("run", "jobs-held.json"), stale, 0o600), b.start(), b.answers())
	if err != nil {
		t.Fatal(err)
	}
	report, err := b.report(b.id)
	if err != nil {
		t.Fatal(err)
	}
	b.check(t, restored, report)
}
