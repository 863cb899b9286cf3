package guard_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/guard"
)

func recoverAll(t *testing.T, b *bed, force bool) []guard.Recovered {
	t.Helper()
	got, err := guard.Recover(t.Context(), b.binary, b.dir, guard.RecoverOptions{Force: force})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// abandon freezes mounts and kills daemon and guard alike.
func abandon(t *testing.T, b *bed, mounts ...string) {
	t.Helper()
	abandonAs(t, "daemon", b, mounts...)
}

func abandonAs(t *testing.T, role string, b *bed, mounts ...string) {
	t.Helper()
	d := startHelper(t, role, append([]string{guardPath, b.dir}, mounts...)...)
	pid, err := strconv.Atoi(d.says(t, "frozen"))
	if err != nil {
		t.Fatal(err)
	}
	stop(t, pid) // it must not see the daemon's end
	d.kill(t)
	syscall.Kill(pid, syscall.SIGKILL)
	wantFrozen(t, mounts[0])
}

func TestRecoverThawsWhatDaemonAndGuardLeft(t *testing.T) {
	b, one, two := newBed(t), newFilesystem(t, "ext4"), newFilesystem(t, "btrfs")
	abandon(t, b, one, two)
	got := recoverAll(t, b, false)
	if len(got) != 1 || got[0].Recovery != guard.RecoveryThawed || got[0].RunID != "helper" ||
		got[0].Result.Cause != guard.CauseRecovered || !got[0].Result.Unbroken() {
		t.Errorf("Recover: %+v, want two filesystems thawed", got)
	}
	wantThawed(t, one)
	wantThawed(t, two)
	b.wantEmpty(t)
	if again := recoverAll(t, b, false); len(again) != 0 {
		t.Errorf("Recover again: %+v, want nothing", again)
	}
}

// The canary lives until the thaw, and must not keep the dead daemon's lock so long.
func TestRecoverThawsWhatADaemonLeftThatDiedThawing(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	abandonAs(t, "thawing daemon", b, mnt)
	began := time.Now()
	got := recoverAll(t, b, false)
	if len(got) != 1 || got[0].Recovery != guard.RecoveryThawed || time.Since(began) > 5*time.Second {
		t.Errorf("Recover: %+v after %v, want it thawed", got, time.Since(began))
	}
	wantThawed(t, mnt)
	b.wantEmpty(t)
}

func TestTwoRecoversAtOnceThawOnce(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	abandon(t, b, mnt)
	var thawed []guard.Recovered
	var mu sync.Mutex
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			got, err := guard.Recover(t.Context(), b.binary, b.dir, guard.RecoverOptions{})
			mu.Lock()
			defer mu.Unlock()
			thawed = append(thawed, got...)
			if err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if len(thawed) != 1 || thawed[0].Recovery != guard.RecoveryThawed {
		t.Errorf("Recover: %+v, want one thaw", thawed)
	}
	wantThawed(t, mnt)
	b.wantEmpty(t)
}

func TestRecoverGivesALivingGuardTimeAndFencesIt(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	d := startHelper(t, "daemon", guardPath, b.dir, mnt)
	pid, _ := strconv.Atoi(d.says(t, "frozen"))
	stop(t, pid)
	d.kill(t)
	began := time.Now()
	got := recoverAll(t, b, false)
	if len(got) != 1 || got[0].Recovery != guard.RecoveryThawed || time.Since(began) < 2*time.Second {
		t.Errorf("Recover after %v: %+v, want a thaw after 2s", time.Since(began), got)
	}
	wantThawed(t, mnt)
	b.wantEmpty(t)
}

func TestRecoverLeavesALivingDaemonAloneUnlessForced(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	d := startHelper(t, "daemon", guardPath, b.dir, mnt)
	d.says(t, "frozen")
	got := recoverAll(t, b, false)
	if len(got) != 1 || got[0].Recovery != guard.RecoveryInUse || got[0].Creator.PID != d.cmd.Process.Pid {
		t.Errorf("Recover: %+v, want it in use by %d", got, d.cmd.Process.Pid)
	}
	wantFrozen(t, mnt)
	got = recoverAll(t, b, true)
	if len(got) != 1 || got[0].Recovery != guard.RecoveryEnded || got[0].Result.Cause != guard.CauseSignal || !got[0].Result.Unbroken() {
		t.Errorf("Recover with force: %+v, want the guard to have thawed", got)
	}
	wantThawed(t, mnt)
	b.wantEmpty(t)
}

func TestAFreezeThatWasForcedEndsWellForItsDaemon(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.frozen(t, identify(t, mnt), guard.Options{})
	recoverAll(t, b, true)
	<-g.Done()
	if res := thaw(t, g); res.Cause != guard.CauseSignal || !res.Unbroken() {
		t.Errorf("result %+v, want a thaw on a signal", res)
	}
}

func TestRecoverRemovesRecordsOfAnotherBoot(t *testing.T) {
	b := newBed(t)
	writeRecord(t, b, guard.Record{BootID: "00000000-0000-4000-8000-000000000000"})
	if got := recoverAll(t, b, false); len(got) != 1 || got[0].Recovery != guard.RecoveryStale {
		t.Errorf("Recover: %+v, want it stale", got)
	}
	b.wantEmpty(t)
}

func TestRecoverRemovesARecordWhoseGuardNeverRan(t *testing.T) {
	b := newBed(t)
	boot, err := guard.BootID()
	if err != nil {
		t.Fatal(err)
	}
	writeRecord(t, b, guard.Record{BootID: boot})
	if got := recoverAll(t, b, false); len(got) != 1 || got[0].Recovery != guard.RecoveryEnded {
		t.Errorf("Recover: %+v, want it ended", got)
	}
	b.wantEmpty(t)
}

// writeRecord writes a state file of a creator that is no more.
func writeRecord(t *testing.T, b *bed, r guard.Record) {
	t.Helper()
	r.RunID, r.Deadline, r.Heartbeat = "old", time.Second, time.Second
	r.Creator = guard.Process{PID: 1, StartTime: 1 << 60}
	r.Filesystems = []guard.Filesystem{{Path: "/var/vcap/store", Type: "ext4"}}
	contents, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(guard.StatePath(b.dir, "old"), contents, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRecoverKeepsWhatItCannotUnderstandAndGoesOn(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	abandon(t, b, mnt)
	garbage := guard.StatePath(b.dir, "garbage")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("no state"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := guard.Recover(t.Context(), b.binary, b.dir, guard.RecoverOptions{})
	if err == nil || !strings.Contains(err.Error(), garbage) {
		t.Errorf("Recover: %v, want an error that names %s", err, garbage)
	}
	if len(got) != 1 || got[0].Recovery != guard.RecoveryThawed {
		t.Errorf("Recover: %+v, want the other thawed", got)
	}
	if _, err := os.Stat(garbage); err != nil {
		t.Error(err)
	}
	wantThawed(t, mnt)
}

func TestRecoverOfAMissingDirectoryFindsNothing(t *testing.T) {
	b := newBed(t)
	b.dir += "/missing"
	if got := recoverAll(t, b, false); len(got) != 0 {
		t.Errorf("Recover: %+v, want nothing", got)
	}
}

func TestRecoverPassesOverRunsThatAreNotNamed(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	abandon(t, b, mnt)
	for _, c := range []struct {
		runs []string
		want int
	}{{[]string{}, 0}, {[]string{"other"}, 0}, {[]string{"other", "helper"}, 1}} {
		got, err := guard.Recover(t.Context(), b.binary, b.dir, guard.RecoverOptions{Runs: c.runs})
		if err != nil || len(got) != c.want {
			t.Errorf("Recover of %q: %+v %v, want %d", c.runs, got, err, c.want)
		}
	}
	wantThawed(t, mnt)
}

func TestRecoverTellsOfWhatSomebodyElseRecovers(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	abandon(t, b, mnt)
	other, err := os.Open(guard.StatePath(b.dir, "helper"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := syscall.Flock(int(other.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	got, err := guard.Recover(ctx, b.binary, b.dir, guard.RecoverOptions{})
	if err != nil || len(got) != 1 || got[0].Recovery != guard.RecoveryStuck || !errors.Is(got[0].Err, guard.ErrStuck) {
		t.Errorf("Recover: %+v %v, want it stuck", got, err)
	}
	other.Close()
	recoverAll(t, b, false)
	wantThawed(t, mnt)
}

// A thaw that the kernel holds up cannot be ended: there must not be more of
// them with every attempt.
func TestRecoverRepeatedWhileItIsStuckStartsNoMoreProcesses(t *testing.T) {
	b, lower := newBed(t), newFilesystem(t, "ext4x")
	upper := mountImage(t, "ext4", lower)
	abandon(t, b, upper)
	run(t, "fsfreeze", "-f", lower)
	var running []int
	for range 3 {
		got := recoverAll(t, b, false)
		if len(got) != 1 || got[0].Recovery != guard.RecoveryStuck {
			t.Errorf("Recover: %+v, want it stuck", got)
		}
		running = append(running, children(t))
	}
	run(t, "fsfreeze", "-u", lower)
	if running[0] != running[2] {
		t.Errorf("after each Recover there are %d children, want no more with each", running)
	}
	if got := recoverAll(t, b, false); len(got) != 1 || got[0].Recovery != guard.RecoveryThawed {
		t.Errorf("Recover: %+v, want it thawed", got)
	}
	wantThawed(t, upper)
	b.wantEmpty(t)
}

// children counts the processes that this one started and that have not ended.
func children(t *testing.T) int {
	t.Helper()
	count := 0
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, _ := os.ReadFile(path)
		_, rest, _ := bytes.Cut(stat, []byte(") "))
		if f := strings.Fields(string(rest)); len(f) > 1 && f[1] == strconv.Itoa(os.Getpid()) {
			count++
		}
	}
	return count
}
