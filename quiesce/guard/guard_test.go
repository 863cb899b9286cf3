package guard_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/guard"
)

func TestFreezesAndThawsEveryFilesystem(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			b, mnt := newBed(t), newFilesystem(t, kind)
			g := b.start(t, identify(t, mnt), guard.Options{})
			if err := g.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantThawed(t, mnt)
			before := time.Now()
			beat(t, g)
			if err := g.Freeze(t.Context()); err != nil {
				t.Fatal(err)
			}
			blocked := wantFrozen(t, mnt)
			res := thaw(t, g)
			after := time.Now()
			if !blocked.endsWithin(3 * time.Second) {
				t.Error("writer is still blocked")
			}
			checkTimes(t, res, before, after)
			b.wantEmpty(t)
			if again := thaw(t, g); again.Cause != res.Cause {
				t.Errorf("second Thaw: %+v, want %+v", again, res)
			}
		})
	}
}

func checkTimes(t *testing.T, res guard.Result, before, after time.Time) {
	t.Helper()
	if res.Cause != guard.CauseAsked || !res.Unbroken() || len(res.Filesystems) != 1 {
		t.Fatalf("result %+v, want one unbroken, asked", res)
	}
	o := res.Filesystems[0]
	const skew = time.Millisecond // between the wall clock and boot time's
	if o.FrozenAt.Before(before.Add(-skew)) || o.ThawedAt.After(after.Add(skew)) {
		t.Errorf("frozen %v to %v, outside of %v to %v", o.FrozenAt, o.ThawedAt, before, after)
	}
	if o.FrozenFor < 300*time.Millisecond || o.HeldFor < o.FrozenFor || o.HeldFor > after.Sub(before) {
		t.Errorf("frozen for %v, held for %v of %v", o.FrozenFor, o.HeldFor, after.Sub(before))
	}
}

func TestAWriterIsBlockedWhileFrozenAndFreeAfter(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	w := startHelper(t, "writer", mnt)
	progress(t, w)
	g := b.frozen(t, identify(t, mnt), guard.Options{})
	time.Sleep(50 * time.Millisecond) // what it wrote before is on its way through the pipe
	stopped := w.count.Load()
	wantFrozen(t, mnt)
	if n := w.count.Load(); n != stopped {
		t.Errorf("writer made %d writes on a frozen filesystem", n-stopped)
	}
	thaw(t, g)
	progress(t, w)
}

// progress waits for ten more lines of h.
func progress(t *testing.T, h *helper) {
	t.Helper()
	from := h.count.Load()
	for until := time.Now().Add(5 * time.Second); h.count.Load() < from+10; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("writer makes no progress")
		}
	}
}

func TestThawsAtTheDeadline(t *testing.T) {
	const deadline = 400 * time.Millisecond
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.frozen(t, identify(t, mnt), guard.Options{Deadline: deadline})
	<-g.Done()
	wantThawed(t, mnt)
	res := thaw(t, g)
	held := res.Filesystems[0].HeldFor
	if res.Cause != guard.CauseDeadline || !res.Unbroken() || held > deadline+300*time.Millisecond || held < deadline-50*time.Millisecond {
		t.Errorf("result %+v, want a thaw at the deadline of %v", res, deadline)
	}
	b.wantEmpty(t)
}

func TestTheDeadlineIsNotHiddenByAFloodOfHeartbeats(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.frozen(t, identify(t, mnt), guard.Options{Deadline: 300 * time.Millisecond})
	for flooding := true; flooding; {
		select {
		case <-g.Done():
			flooding = false
		default:
			g.Beat()
		}
	}
	if res := thaw(t, g); res.Cause != guard.CauseDeadline || res.Filesystems[0].HeldFor > time.Second {
		t.Errorf("result %+v, want the deadline", res)
	}
}

func TestThawsWithoutHeartbeat(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.start(t, identify(t, mnt), guard.Options{Heartbeat: 300 * time.Millisecond})
	time.Sleep(400 * time.Millisecond) // none is due before the freeze
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-g.Done()
	res := thaw(t, g)
	if held := res.Filesystems[0].HeldFor; res.Cause != guard.CauseHeartbeat || !res.Unbroken() || held > time.Second {
		t.Errorf("result %+v, want a thaw after 300ms without heartbeat", res)
	}
}

func TestThawsOnSignals(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGALRM, 40} {
		g := b.frozen(t, identify(t, mnt), guard.Options{})
		syscall.Kill(g.Process().PID, s)
		<-g.Done()
		if res := thaw(t, g); res.Cause != guard.CauseSignal || !res.Unbroken() {
			t.Errorf("%v: result %+v, want a thaw on the signal", s, res)
		}
	}
	wantThawed(t, mnt)
	b.wantEmpty(t)
}

func TestSurvivesStopSignalsOfATerminal(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.frozen(t, identify(t, mnt), guard.Options{})
	for _, s := range []syscall.Signal{syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGPIPE} {
		syscall.Kill(g.Process().PID, s)
	}
	if res := thaw(t, g); res.Cause != guard.CauseAsked || !res.Unbroken() {
		t.Errorf("result %+v, want it asked", res)
	}
}

func TestAnUnknownCommandThaws(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.frozen(t, identify(t, mnt), guard.Options{})
	g.Send('x')
	<-g.Done()
	if res := thaw(t, g); res.Cause != guard.CauseProtocol || !res.Unbroken() {
		t.Errorf("result %+v, want a broken protocol", res)
	}
}

func TestAnotherFreezeIsNeverThawed(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.start(t, identify(t, mnt), guard.Options{})
	run(t, "fsfreeze", "-f", mnt)
	err := g.Freeze(t.Context())
	var failed *guard.Error
	if !errors.Is(err, guard.ErrFrozenByOther) || !errors.As(err, &failed) || failed.Path != mnt || failed.Errno != syscall.EBUSY {
		t.Errorf("Freeze: %v, want %v", err, guard.ErrFrozenByOther)
	}
	wantFrozen(t, mnt)
	run(t, "fsfreeze", "-u", mnt)
	if res := thaw(t, g); res.Unbroken() || res.Cause != guard.CauseFailed {
		t.Errorf("result %+v, want it failed", res)
	}
	b.wantEmpty(t)
}

func TestAForeignThawIsToldAsLost(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.frozen(t, identify(t, mnt), guard.Options{})
	run(t, "fsfreeze", "-u", mnt)
	if res := thaw(t, g); res.Unbroken() || res.Filesystems[0].State != guard.StateLost {
		t.Errorf("result %+v, want it lost", res)
	}
	b.wantEmpty(t)
}

func TestAFailureThawsWhatWasFrozen(t *testing.T) {
	for name, ranks := range map[string][2]int{"in the same rank": {0, 0}, "in the next rank": {0, 1}} {
		t.Run(name, func(t *testing.T) {
			b, one, two := newBed(t), newFilesystem(t, "ext4"), newFilesystem(t, "btrfs")
			fs := identify(t, one, two)
			fs[0].Rank, fs[1].Rank = ranks[0], ranks[1]
			g := b.start(t, fs, guard.Options{})
			run(t, "fsfreeze", "-f", two)
			err := g.Freeze(t.Context())
			run(t, "fsfreeze", "-u", two)
			if !errors.Is(err, guard.ErrFrozenByOther) || strings.Contains(err.Error(), one) {
				t.Errorf("Freeze: %v, want it to name %s alone", err, two)
			}
			wantThawed(t, one)
			res := thaw(t, g)
			first := res.Filesystems[0].State
			withdrawn := first == guard.StateNone && ranks[0] == ranks[1] // its turn came after the failure
			if first != guard.StateThawed && !withdrawn || res.Filesystems[1].State != guard.StateFailed {
				t.Errorf("result %+v, want thawed and failed", res)
			}
		})
	}
}

func TestNestedImagesAreFrozenByRank(t *testing.T) {
	b, lower := newBed(t), newFilesystem(t, "ext4x")
	upper := mountImage(t, "ext4", lower)
	fs := identify(t, lower, upper)
	fs[0].Rank = 1
	dirty(t, upper)
	g := b.frozen(t, fs, guard.Options{})
	res := thaw(t, g)
	low, up := res.Filesystems[0], res.Filesystems[1]
	if !res.Unbroken() || !up.FrozenAt.Before(low.FrozenAt) || !low.ThawedAt.Before(up.ThawedAt) {
		t.Errorf("result %+v, want the upper frozen first and thawed last", res)
	}
}

// dirty leaves unwritten data on mnt.
func dirty(t *testing.T, mnt string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(mnt, "dirty"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Frozen in the wrong order, the upper's FIFREEZE waits for the lower's thaw,
// where no signal reaches it.
func TestAtTheDeadlineTheOthersAreThawedFirst(t *testing.T) {
	b, lower := newBed(t), newFilesystem(t, "ext4x")
	upper := mountImage(t, "ext4", lower)
	fs := identify(t, lower, upper)
	fs[1].Rank = 1
	dirty(t, upper)
	g := b.start(t, fs, guard.Options{Deadline: 500 * time.Millisecond})
	err := g.Freeze(t.Context())
	var ended *guard.EndedError
	if !errors.As(err, &ended) || ended.Cause != guard.CauseDeadline {
		t.Errorf("Freeze: %v, want the deadline", err)
	}
	wantThawed(t, lower)
	wantThawed(t, upper)
	res := thaw(t, g)
	if !res.Unbroken() || res.Filesystems[0].HeldFor > time.Second {
		t.Errorf("result %+v, want both thawed shortly after the deadline", res)
	}
	b.wantEmpty(t)
}

func TestAFreezeHeldUpInTheKernelIsStuckUntilItIsFreed(t *testing.T) {
	b, lower := newBed(t), newFilesystem(t, "ext4x")
	upper := mountImage(t, "ext4", lower)
	dirty(t, upper)
	g := b.start(t, identify(t, upper), guard.Options{})
	run(t, "fsfreeze", "-f", lower)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := g.Freeze(ctx)
	took := time.Since(began)
	run(t, "fsfreeze", "-u", lower)
	var stuck *guard.StuckError
	if !errors.Is(err, guard.ErrStuck) || !errors.As(err, &stuck) || !errors.Is(err, context.DeadlineExceeded) || took > 7*time.Second {
		t.Fatalf("Freeze: %v after %v, want it stuck", err, took)
	}
	t.Logf("stuck after %v: %v\n%s", took, err, stuck.Stack)
	if !strings.Contains(stuck.Stack, "freeze_super") {
		t.Errorf("stack %q does not show the freeze", stuck.Stack)
	}
	thaw(t, g)
	wantThawed(t, upper)
	b.wantEmpty(t)
}

func TestAMountThatIsNotTheSurveyedOneIsRefused(t *testing.T) {
	dir := shortDir(t)
	b, mnt := newBed(t), mountImage(t, "ext4", dir)
	fs := identify(t, mnt)
	moved := map[string]func() []guard.Filesystem{
		"another mount id": func() []guard.Filesystem {
			f := fs[0]
			f.MountID++
			return []guard.Filesystem{f}
		},
		"unmounted": func() []guard.Filesystem {
			run(t, "umount", mnt)
			return fs
		},
	}
	for _, name := range []string{"another mount id", "unmounted"} {
		t.Run(name, func(t *testing.T) {
			o := guard.Options{RunID: "r", Dir: b.dir, Deadline: time.Second}
			_, err := guard.Start(t.Context(), b.binary, moved[name](), o)
			if !errors.Is(err, guard.ErrMoved) || !strings.Contains(err.Error(), mnt) {
				t.Errorf("Start: %v, want %v", err, guard.ErrMoved)
			}
			b.wantEmpty(t)
		})
	}
}

func TestStartRefusesAStateDirectoryThatIsToBeFrozen(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	_, err := guard.Start(t.Context(), b.binary, identify(t, mnt), guard.Options{RunID: "r", Dir: mnt, Deadline: time.Second})
	if err == nil || !strings.Contains(err.Error(), "which is to be frozen") {
		t.Errorf("Start: %v, want it refused", err)
	}
}

func TestAKilledGuardIsRecoveredByThaw(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.frozen(t, identify(t, mnt), guard.Options{})
	syscall.Kill(g.Process().PID, syscall.SIGKILL)
	<-g.Done()
	wantFrozen(t, mnt)
	res := thaw(t, g)
	if res.Cause != guard.CauseRecovered || !res.Unbroken() {
		t.Errorf("result %+v, want it recovered", res)
	}
	wantThawed(t, mnt)
	b.wantEmpty(t)
}

func TestAGuardThatDoesNotAnswerIsFenced(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.frozen(t, identify(t, mnt), guard.Options{})
	stop(t, g.Process().PID)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	res, err := g.Thaw(ctx)
	if err != nil || res.Cause != guard.CauseRecovered || !res.Unbroken() {
		t.Errorf("result %+v, %v, want it recovered", res, err)
	}
	wantThawed(t, mnt)
	b.wantEmpty(t)
}

func TestAGuardThatNeverFrozeIsThawedAllTheSame(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.start(t, identify(t, mnt), guard.Options{})
	if err := syscall.Unmount(mnt, 0); err != syscall.EBUSY {
		t.Errorf("unmount below a guard: %v, want %v", err, syscall.EBUSY)
	}
	res := thaw(t, g)
	if res.Cause != guard.CauseAsked || res.Unbroken() || res.Filesystems[0].State != guard.StateNone {
		t.Errorf("result %+v, want nothing done", res)
	}
	b.wantEmpty(t)
}

func TestACancelledFreezeIsThawedByTheGuard(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.start(t, identify(t, mnt), guard.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := g.Freeze(ctx)
	res := thaw(t, g)
	if err != nil && (!errors.Is(err, context.Canceled) || res.Cause != guard.CauseAsked) {
		t.Errorf("Freeze: %v, result %+v, want it cancelled and asked", err, res)
	}
	wantThawed(t, mnt)
	b.wantEmpty(t)
}
