package guard_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/quiesce/guard"
)

// What other freezers were seen to fail at.

// playThawingDaemon is a daemon that has begun to thaw what a dead guard left.
func playThawingDaemon(binary, dir, mnt string) int {
	g, err := freezeFor(binary, dir, []string{mnt})
	if err == nil {
		err = g.LockState()
	}
	return beatOn(g, err)
}

// The main thread of a blocked daemon is not the one that is blocked: the
// kernel wakes the main thread for a signal to the process, and while that one
// sleeps uninterruptibly a SIGSTOP stops nobody.
func init() {
	if os.Getenv(roleEnv) == "blocked daemon" {
		runtime.LockOSThread()
	}
}

// playBlockedDaemon is a daemon that writes to what it froze.
func playBlockedDaemon(binary, dir, mnt string) int {
	go func() {
		for name := filepath.Join(mnt, "blocked"); ; time.Sleep(time.Millisecond) {
			_ = os.WriteFile(name, []byte("x"), 0o600)
		}
	}()
	return playDaemon(binary, dir, []string{mnt})
}

// hugeWrite is as much as one write(2) takes.
const hugeWrite = 1<<31 - 4096

// playHugeWriter writes to mnt in one write(2). The memory that it writes is a
// small piece, mapped again and again.
func playHugeWriter(mnt string) int {
	const piece = 64 << 20
	memory, err := unix.MemfdCreate("piece", 0)
	if err == nil {
		err = unix.Ftruncate(memory, piece)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	base, err := unix.MmapPtr(-1, 0, nil, hugeWrite+4096, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	for off := uintptr(0); off < hugeWrite && err == nil; off += piece {
		_, err = unix.MmapPtr(memory, 0, unsafe.Add(base, off), piece, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED|unix.MAP_POPULATE)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	f, err := os.Create(filepath.Join(mnt, "huge"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("writing")
	_, _, _ = unix.Syscall(unix.SYS_WRITE, f.Fd(), uintptr(base), hugeWrite)
	fmt.Println("wrote")
	return 0
}

// wantInFreeze waits until a thread of the guard is held up in FIFREEZE.
func wantInFreeze(t *testing.T, pid int) {
	t.Helper()
	for range 400 {
		stacks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stack", pid))
		for _, path := range stacks {
			if text, _ := os.ReadFile(path); strings.Contains(string(text), "freeze_super") {
				return
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("no thread of the guard is held up in the freeze")
}

// waitFor waits until the guard's filesystem i is in a state.
func waitFor(t *testing.T, g *guard.Guard, i int, want guard.State) {
	t.Helper()
	for range 400 {
		if rec, err := g.ReadState(); err == nil && rec.Cells[i].State == want {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("filesystem %d is not %v", i, want)
}

// One write(2) in flight holds up FIFREEZE until it is done. The other filesystem
// is thawed at the deadline, and the one that was held up when it can be.
func TestAFreezeHeldUpByAHugeWrite(t *testing.T) {
	dir, err := os.MkdirTemp("", "guard-test-") // the disk: this takes 2 GiB
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b, other := newBed(t), newFilesystem(t, "ext4")
	image, mnt := filepath.Join(dir, "huge.img"), filepath.Join(dir, "huge.mnt")
	run(t, "truncate", "-s", "3G", image)
	run(t, "mkfs.ext4", "-q", "-F", image)
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	mount(t, image, mnt)
	arm(t, mnt)
	g := b.start(t, identify(t, mnt, other), guard.Options{Deadline: 300 * time.Millisecond})
	writer := startHelper(t, "huge writer", mnt)
	writer.says(t, "writing")
	time.Sleep(50 * time.Millisecond)
	began, frozen := time.Now(), make(chan error, 1)
	go func() { frozen <- g.Freeze(t.Context()) }()
	waitFor(t, g, 1, guard.StateFrozen)
	wantInFreeze(t, g.Process().PID)
	blocked := probe(t, other)
	if !blocked.endsWithin(time.Second) {
		t.Error("the other filesystem is not thawed at the deadline")
	}
	t.Logf("the other one was thawed %v after the freeze began", time.Since(began))
	wantInFreeze(t, g.Process().PID)
	writer.kill(t) // it ends early, and with it what held up the freeze
	var ended *guard.EndedError
	if err := <-frozen; !errors.As(err, &ended) || ended.Cause != guard.CauseDeadline {
		t.Errorf("Freeze: %v, want the deadline", err)
	}
	t.Logf("all were thawed %v after the freeze began", time.Since(began))
	thaw(t, g)
	wantThawed(t, mnt)
	b.wantEmpty(t)
}

// playListener must allow every opening of a file on watched, and writes to other
// before it does.
func playListener(watched, other string) int {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT, unix.O_RDONLY)
	if err == nil {
		err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_MOUNT, unix.FAN_OPEN_PERM, -1, watched)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("listening")
	for events := make([]byte, 4096); ; {
		n, err := unix.Read(fd, events)
		if err != nil {
			return 1
		}
		for size := int(unsafe.Sizeof(unix.FanotifyEventMetadata{})); n >= size; n -= size {
			event := (*unix.FanotifyEventMetadata)(unsafe.Pointer(&events[n-size]))
			fmt.Println("asked")
			time.Sleep(200 * time.Millisecond)
			_ = os.WriteFile(filepath.Join(other, "note"), []byte("x"), 0o600)
			answer := binary.NativeEndian.AppendUint32(nil, uint32(event.Fd))
			_, _ = unix.Write(fd, binary.NativeEndian.AppendUint32(answer, unix.FAN_ALLOW))
			unix.Close(int(event.Fd))
		}
	}
}

// Whoever opens a file to cut it off has begun to write, and waits for the
// listener's leave, which waits for the other filesystem's thaw.
func TestAFreezeHeldUpByAPermissionListener(t *testing.T) {
	b, watched, other := newBed(t), newFilesystem(t, "ext4"), newFilesystem(t, "ext4")
	cut := filepath.Join(watched, "cut")
	if err := os.WriteFile(cut, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	listener := startHelper(t, "listener", watched, other)
	listener.says(t, "listening")
	g := b.start(t, identify(t, watched, other), guard.Options{Deadline: 700 * time.Millisecond})
	opener := startHelper(t, "truncate", cut)
	listener.says(t, "asked")
	frozen := make(chan error, 1)
	go func() { frozen <- g.Freeze(t.Context()) }()
	wantInFreeze(t, g.Process().PID)
	var ended *guard.EndedError
	if err := <-frozen; !errors.As(err, &ended) || ended.Cause != guard.CauseDeadline {
		t.Errorf("Freeze: %v, want the deadline", err)
	}
	res := thaw(t, g)
	for _, f := range res.Filesystems {
		if f.State != guard.StateThawed || f.HeldFor > 2*time.Second {
			t.Errorf("%+v, want it thawed shortly after the deadline", f)
		}
	}
	if !opener.endsWithin(3 * time.Second) {
		t.Error("the file is still not open")
	}
	listener.kill(t)
	b.wantEmpty(t)
}

// The guard's descriptor keeps a mount from being unmounted, and reaches the
// filesystem when it was unmounted lazily.
func TestUnmountingWhileFrozen(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			b, dir := newBed(t), shortDir(t)
			mnt := mountImage(t, kind, dir)
			g := b.frozen(t, identify(t, mnt), guard.Options{})
			time.Sleep(20 * time.Millisecond) // the canary is on its way
			if err := unix.Unmount(mnt, 0); err != unix.EBUSY {
				t.Errorf("unmount: %v, want %v", err, unix.EBUSY)
			}
			if err := unix.Unmount(mnt, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
			res := thaw(t, g)
			if !res.Unbroken() || res.Filesystems[0].Unseen {
				t.Errorf("result %+v, want it unbroken", res)
			}
			mount(t, filepath.Join(dir, kind+".img"), mnt)
			wantThawed(t, mnt)
			b.wantEmpty(t)
		})
	}
}

// The deadline must not come late, nor early, when somebody sets the clock; nor
// must a suspended machine put it off.
func TestTheDeadlineIsOnTheClockThatNobodySets(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.frozen(t, identify(t, mnt), guard.Options{})
	infos, err := filepath.Glob("/proc/" + strconv.Itoa(g.Process().PID) + "/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	timers := 0
	for _, path := range infos {
		text, _ := os.ReadFile(path)
		if strings.Contains(string(text), "clockid:") {
			timers++
			if clock := field(t, string(text), "clockid:"); clock != unix.CLOCK_BOOTTIME {
				t.Errorf("a timer is on clock %d", clock)
			}
		}
	}
	if timers != 1 {
		t.Errorf("the guard has %d timers", timers)
	}
	thaw(t, g)
}

// How long a freeze lasted comes from that clock, too, wherever the wall clock is.
func TestTheLengthOfAFreezeDoesNotComeFromTheWallClock(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	g := b.frozen(t, identify(t, mnt), guard.Options{})
	rec, err := g.ReadState()
	if err != nil {
		t.Fatal(err)
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		t.Fatal(err)
	}
	began, frozen := rec.Cells[0].BeganAt, rec.Cells[0].FrozenAt
	if ago := time.Duration(now.Nano()) - began; ago < 0 || ago > 5*time.Second {
		t.Errorf("the freeze began %v ago on the boot clock", ago)
	}
	if f := thaw(t, g).Filesystems[0]; f.HeldFor-f.FrozenFor != frozen-began {
		t.Errorf("%+v, and the record says that freezing took %v", f, frozen-began)
	}
}

// Whoever unmounts lazily after daemon and guard were killed hides the filesystem
// from its path. The canary, which waits for the thaw, has it open still.
func TestRecoverOfAFilesystemThatWasUnmountedLazily(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			b, dir := newBed(t), shortDir(t)
			mnt := mountImage(t, kind, dir)
			abandon(t, b, mnt)
			if err := unix.Unmount(mnt, 0); err != unix.EBUSY { // the canary has it open
				t.Errorf("unmount: %v, want %v", err, unix.EBUSY)
			}
			if err := unix.Unmount(mnt, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
			got := recoverAll(t, b, false)
			if len(got) != 1 || got[0].Recovery != guard.RecoveryThawed || got[0].Err != nil {
				t.Errorf("Recover: %+v, want it thawed", got)
			}
			mount(t, filepath.Join(dir, kind+".img"), mnt)
			wantThawed(t, mnt)
			b.wantEmpty(t)
			wantNoCanary(t, b)
		})
	}
}

// Nothing ends a FIFREEZE that the kernel holds up. It is given up soon after the
// deadline, and thawed as soon as it has come to its end, with nobody asking.
func TestAFreezeThatNoDeadlineEndsIsStuck(t *testing.T) {
	b, lower := newBed(t), newFilesystem(t, "ext4x")
	upper := mountImage(t, "ext4", lower)
	dirty(t, upper)
	g := b.start(t, identify(t, upper), guard.Options{Deadline: 300 * time.Millisecond})
	run(t, "fsfreeze", "-f", lower)
	err := g.Freeze(t.Context())
	run(t, "fsfreeze", "-u", lower)
	var stuck *guard.StuckError
	if !errors.As(err, &stuck) || !strings.Contains(stuck.Stack, "freeze_super") || !strings.Contains(err.Error(), "the deadline has passed") {
		t.Errorf("Freeze: %v, want it stuck past its deadline", err)
	}
	wantThawed(t, upper)
	thaw(t, g)
	b.wantEmpty(t)
}

// The mount may have been moved, or be in a namespace of which the process that
// the path names has ended, and another lives.
func TestASuperblockIsFoundWhereverItIsMounted(t *testing.T) {
	mnt := newFilesystem(t, "ext4")
	f := identify(t, mnt)[0]
	moved := filepath.Join(shortDir(t), "moved")
	if err := os.Mkdir(moved, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(mnt, moved, "", unix.MS_MOVE, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Mount(moved, mnt, "", unix.MS_MOVE, ""); err != nil {
			t.Error(err)
		}
	})
	fd, err := f.Elsewhere()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || unix.Major(st.Dev) != f.Major || unix.Minor(st.Dev) != f.Minor {
		t.Errorf("found %+v, %v, want %d:%d", st, err, f.Major, f.Minor)
	}
	f.Minor += 1 << 19
	if fd, err := f.Elsewhere(); err == nil {
		unix.Close(fd)
		t.Error("found what is not there")
	}
}
