package guard_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
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

func TestStartLeavesNothingBehindWhenTheGuardCannotRun(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	for _, program := range []string{"/bin/true", "/bin/cat"} { // ends; echoes nothing sensible
		other, err := guard.OpenBinary(program)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := guard.Start(ctx, other, identify(t, mnt), guard.Options{RunID: "r", Dir: b.dir, Deadline: time.Second}); err == nil {
			t.Errorf("%s passes for a guard", program)
		}
		b.wantEmpty(t)
	}
}

func TestARemovedExecutableStillRuns(t *testing.T) {
	mnt, dir := newFilesystem(t, "ext4"), shortDir(t)
	contents, err := os.ReadFile(guardPath)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "quiesced-guard")
	if err := os.WriteFile(path, contents, 0o755); err != nil {
		t.Fatal(err)
	}
	b := &bed{dir: shortDir(t)}
	if b.binary, err = guard.OpenBinary(path); err != nil {
		t.Fatal(err)
	}
	defer b.binary.Close()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if res := thaw(t, b.frozen(t, identify(t, mnt), guard.Options{})); !res.Unbroken() {
		t.Errorf("result %+v, want it unbroken", res)
	}
}

func TestTheCollectorDoesNotEndTheWindow(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.frozen(t, identify(t, mnt), guard.Options{})
	for range 5 {
		runtime.GC()
		time.Sleep(20 * time.Millisecond)
	}
	wantFrozen(t, mnt)
	if res := thaw(t, g); res.Cause != guard.CauseAsked || !res.Unbroken() {
		t.Errorf("result %+v, want it asked", res)
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

func TestTheGuardLocksItsMemoryAndLeavesTheSession(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	began := time.Now()
	g := b.frozen(t, identify(t, mnt), guard.Options{})
	frozen := time.Since(began)
	pid := g.Process().PID
	smaps, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	session, _, errno := syscall.RawSyscall(syscall.SYS_GETSID, uintptr(pid), 0, 0)
	score, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/oom_score_adj")
	thaw(t, g)
	locked := field(t, string(smaps), "Locked:")
	t.Logf("from Start to frozen %v, Locked %d kB, Rss %d kB", frozen, locked, field(t, string(smaps), "Rss:"))
	if locked == 0 || locked > 8<<10 {
		t.Errorf("%d kB locked", locked)
	}
	if errno != 0 || int(session) != pid {
		t.Errorf("session %d of process %d", session, pid)
	}
	exempt := strings.TrimSpace(string(score)) == "-1000" // not without CAP_SYS_RESOURCE
	if warned := strings.Contains(strings.Join(g.Warnings(), " "), "OOM"); exempt == warned {
		t.Errorf("oom_score_adj %q, warnings %q", score, g.Warnings())
	}
}

func field(t *testing.T, text, name string) int {
	t.Helper()
	_, rest, _ := strings.Cut(text, name)
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestManyFilesystemsAreFrozenAtOnce(t *testing.T) {
	b := newBed(t)
	var mounts []string
	for range 64 {
		mounts = append(mounts, newFilesystem(t, "ext4"))
	}
	g := b.start(t, identify(t, mounts...), guard.Options{})
	beat(t, g)
	ready := threads(t, g)
	if err := g.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	frozen := threads(t, g)
	res := thaw(t, g)
	if !res.Unbroken() {
		t.Errorf("result %+v, want it unbroken", res)
	}
	if frozen != ready {
		t.Errorf("the guard has %d threads in the window, had %d when ready", frozen, ready)
	}
}

func threads(t *testing.T, g *guard.Guard) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/" + strconv.Itoa(g.Process().PID) + "/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

// The guard thaws when its daemon is gone. A helper is the daemon here.
func TestThawsWhenTheDaemon(t *testing.T) {
	for _, fate := range []struct {
		name   string
		role   string
		signal syscall.Signal
		cause  guard.Cause
		limit  time.Duration
	}{
		{"is killed", "daemon", syscall.SIGKILL, guard.CausePipe, 800 * time.Millisecond},
		{"is stopped", "daemon", syscall.SIGSTOP, guard.CauseHeartbeat, 2 * time.Second},
		// Such a thread keeps the pipe open and the process from ending.
		{"is killed with a thread blocked by the freeze", "blocked daemon", syscall.SIGKILL, guard.CauseHeartbeat, 2 * time.Second},
		{"is stopped with a thread blocked by the freeze", "blocked daemon", syscall.SIGSTOP, guard.CauseHeartbeat, 2 * time.Second},
	} {
		t.Run(fate.name, func(t *testing.T) {
			b, mnt := newBed(t), newFilesystem(t, "ext4")
			d := startHelper(t, fate.role, guardPath, b.dir, mnt)
			d.says(t, "frozen")
			blocked := wantFrozen(t, mnt)
			began := time.Now()
			d.cmd.Process.Signal(fate.signal)
			if !blocked.endsWithin(5 * time.Second) {
				t.Fatal("still frozen")
			}
			took := time.Since(began)
			t.Logf("thawed after %v", took)
			if took > fate.limit {
				t.Errorf("thawed after %v, want %v at most", took, fate.limit)
			}
			d.kill(t)
			got := recoverAll(t, b, false)
			if len(got) != 1 || got[0].Recovery != guard.RecoveryEnded || !got[0].Result.Unbroken() || got[0].Result.Cause != fate.cause {
				t.Errorf("Recover: %+v, want the end of an unbroken freeze by %v", got, fate.cause)
			}
			b.wantEmpty(t)
		})
	}
}

// What the daemon starts beside must not hold the pipe.
func TestThePipeDoesNotLeakIntoOtherChildren(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	before := childDescriptors(t)
	g := b.frozen(t, identify(t, mnt), guard.Options{})
	during := childDescriptors(t)
	thaw(t, g)
	if before != during {
		t.Errorf("a child has descriptors %q, had %q", during, before)
	}
}

func childDescriptors(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("ls", "/proc/self/fd").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
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
