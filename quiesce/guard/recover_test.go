package guard_test

import (
	"bytes"
	"os"
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
	d := startHelper(t, "daemon", append([]string{guardPath, b.dir}, mounts...)...)
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
