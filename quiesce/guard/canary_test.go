package guard_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/guard"
)

func TestAThawOfOursIsSeenByTheCanary(t *testing.T) {
	b, one, two := newBed(t), newFilesystem(t, "ext4"), newFilesystem(t, "xfs")
	g := b.frozen(t, identify(t, one, two), guard.Options{})
	time.Sleep(20 * time.Millisecond) // the canary goes to wait
	for _, f := range thaw(t, g).Filesystems {
		if f.Unseen {
			t.Errorf("%+v, want its thaw seen", f)
		}
	}
	wantNoCanary(t, b)
}

// Somebody thaws ours, and freezes again what is theirs then.
func TestAForeignThawAndFreezeIsNoticedAndLeftAlone(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			b, mnt, other := newBed(t), newFilesystem(t, kind), newFilesystem(t, "ext4")
			g := b.frozen(t, identify(t, mnt, other), guard.Options{})
			time.Sleep(20 * time.Millisecond)
			run(t, "fsfreeze", "-u", mnt)
			began := time.Now()
			run(t, "fsfreeze", "-f", mnt)
			select {
			case <-g.Done():
			case <-time.After(time.Second):
				t.Error("the guard does not notice")
			}
			t.Logf("noticed %v after the thaw", time.Since(began))
			res := thaw(t, g)
			if res.Cause != guard.CauseForeign || res.Filesystems[0].State != guard.StateLost || res.Filesystems[1].State != guard.StateThawed {
				t.Errorf("result %+v, want the first lost and the other thawed", res)
			}
			wantThawed(t, other)
			wantFrozen(t, mnt)
			run(t, "fsfreeze", "-u", mnt)
			wantNoCanary(t, b)
		})
	}
}

// Whoever takes over from daemon and guard knows from the canary, too.
func TestRecoverLeavesAFreezeAloneThatIsNotOursAnyMore(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	abandon(t, b, mnt)
	run(t, "fsfreeze", "-u", mnt)
	time.Sleep(20 * time.Millisecond)
	run(t, "fsfreeze", "-f", mnt)
	got := recoverAll(t, b, false)
	if len(got) != 1 || got[0].Result.Filesystems[0].State != guard.StateLost {
		t.Errorf("Recover: %+v, want it lost", got)
	}
	wantFrozen(t, mnt)
	run(t, "fsfreeze", "-u", mnt)
	b.wantEmpty(t)
}

func TestAGuardWhoseCanaryDiedGoesOn(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.start(t, identify(t, mnt), guard.Options{})
	syscall.Kill(canaryOf(t, b), syscall.SIGKILL)
	wantNoCanary(t, b)
	beat(t, g)
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantFrozen(t, mnt)
	res := thaw(t, g)
	if !res.Unbroken() || res.Cause != guard.CauseAsked || res.Filesystems[0].Unseen {
		t.Errorf("result %+v, want it unbroken", res)
	}
	if warned := strings.Join(g.Warnings(), " "); !strings.Contains(warned, "the canary ended early") {
		t.Errorf("warnings %q do not tell of the canary", warned)
	}
	wantThawed(t, mnt)
}

// A canary that was killed lives on in the kernel until the thaw.
func TestAKilledCanaryHoldsUpNothing(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	d := startHelper(t, "daemon", guardPath, b.dir, mnt)
	d.says(t, "frozen")
	time.Sleep(20 * time.Millisecond)
	syscall.Kill(canaryOf(t, b), syscall.SIGKILL)
	blocked := wantFrozen(t, mnt)
	d.cmd.Process.Signal(syscall.SIGKILL)
	if !blocked.endsWithin(800 * time.Millisecond) {
		t.Error("still frozen")
	}
	got := recoverAll(t, b, false)
	if len(got) != 1 || got[0].Result.Cause != guard.CausePipe || !got[0].Result.Unbroken() {
		t.Errorf("Recover: %+v, want an unbroken freeze that the pipe's end ended", got)
	}
	wantNoCanary(t, b)
}

// canaries are the canaries that have a state file in b's directory open.
func canaries(b *bed) []int {
	var found []int
	links, _ := filepath.Glob("/proc/[0-9]*/fd/3")
	for _, link := range links {
		target, _ := os.Readlink(link)
		if !strings.HasPrefix(target, b.dir+"/") {
			continue
		}
		pid := strings.Split(link, "/")[2]
		if args, _ := os.ReadFile("/proc/" + pid + "/cmdline"); strings.Contains(string(args), "canary") {
			n, _ := strconv.Atoi(pid)
			found = append(found, n)
		}
	}
	return found
}

func canaryOf(t *testing.T, b *bed) int {
	t.Helper()
	found := canaries(b)
	if len(found) != 1 {
		t.Fatalf("there are %d canaries", len(found))
	}
	return found[0]
}

// wantNoCanary checks that the canary goes by itself.
func wantNoCanary(t *testing.T, b *bed) {
	t.Helper()
	for range 200 {
		if len(canaries(b)) == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("a canary is left")
}
