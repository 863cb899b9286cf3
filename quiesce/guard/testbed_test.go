package guard_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/guard"
)

// The tests freeze filesystems of their own on loop devices. Whatever touches
// one that is frozen sleeps uninterruptibly, so only children do, and another
// child thaws it after armed, whatever becomes of the test.
const (
	armed   = 15 * time.Second
	roleEnv = "GUARD_TEST_ROLE"
)

// guardPath is the guard's executable, built by TestMain.
var guardPath string

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		os.Exit(playRole(role, os.Args[1:]))
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "guard-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	guardPath = filepath.Join(dir, "quiesced-guard")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", guardPath, "../../cmd/quiesced-guard")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot build the guard: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// probe is a child that tries to create a file on a filesystem.
func probe(t testing.TB, mnt string) *helper {
	t.Helper()
	h := startHelper(t, "touch", mnt)
	h.says(t, "trying")
	return h
}

func wantFrozen(t testing.TB, mnt string) *helper {
	t.Helper()
	p := probe(t, mnt)
	if p.endsWithin(300 * time.Millisecond) {
		t.Fatalf("%s is not frozen", mnt)
	}
	return p
}

func wantThawed(t testing.TB, mnt string) {
	t.Helper()
	if !probe(t, mnt).endsWithin(3 * time.Second) {
		t.Fatalf("%s is frozen", mnt)
	}
}

// run runs a command that touches no frozen filesystem but through FIFREEZE and
// FITHAW.
func run(t testing.TB, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// shortDir is a directory in memory if there is one: the machine's disk is
// busy with other things.
func shortDir(t testing.TB) string {
	t.Helper()
	base := ""
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		base = "/dev/shm"
	}
	dir, err := os.MkdirTemp(base, "guard-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// mountImage makes a filesystem in an image in dir, mounts it, and arms its
// thaw.
func mountImage(t testing.TB, kind, dir string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("freezing needs root")
	}
	size := map[string]string{"ext4": "32M", "xfs": "300M", "btrfs": "128M"}[kind]
	force := map[string]string{"ext4": "-F", "xfs": "-f", "btrfs": "-f"}[kind]
	if kind == "ext4x" { // large enough for another image
		kind, size, force = "ext4", "128M", "-F"
	}
	image, mnt := filepath.Join(dir, kind+".img"), filepath.Join(dir, kind+".mnt")
	run(t, "truncate", "-s", size, image)
	run(t, "mkfs."+kind, "-q", force, image)
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	mount(t, image, mnt)
	arm(t, mnt)
	return mnt
}

func newFilesystem(t testing.TB, kind string) string {
	t.Helper()
	return mountImage(t, kind, shortDir(t))
}

func mount(t testing.TB, image, mnt string) {
	t.Helper()
	run(t, "mount", "-o", "loop", image, mnt)
	t.Cleanup(func() {
		for range 50 {
			if err := syscall.Unmount(mnt, 0); err == nil || err == syscall.EINVAL {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("cannot unmount %s", mnt)
	})
}

// arm has another process thaw mnt, should the test not. A test that leaves it
// frozen fails.
func arm(t testing.TB, mnt string) {
	t.Helper()
	script := fmt.Sprintf("sleep %d; fsfreeze -u '%s'", int(armed.Seconds()), mnt)
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !probe(t, mnt).endsWithin(3 * time.Second) {
			t.Errorf("%s is left frozen", mnt)
			exec.Command("fsfreeze", "-u", mnt).Run()
		}
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	})
}

func openBinary(t testing.TB) *guard.Binary {
	t.Helper()
	b, err := guard.OpenBinary(guardPath)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func identify(t testing.TB, mounts ...string) []guard.Filesystem {
	t.Helper()
	var fs []guard.Filesystem
	for _, m := range mounts {
		f, err := guard.Identify(m)
		if err != nil {
			t.Fatal(err)
		}
		fs = append(fs, f)
	}
	return fs
}

// bed is where a test's guards live.
type bed struct {
	binary *guard.Binary
	dir    string
	runs   int
}

func newBed(t testing.TB) *bed {
	return &bed{binary: openBinary(t), dir: shortDir(t)}
}

// start starts a guard with a deadline well before armed.
func (b *bed) start(t testing.TB, fs []guard.Filesystem, o guard.Options) *guard.Guard {
	t.Helper()
	b.runs++
	o.RunID, o.Dir = "run-"+strconv.Itoa(b.runs), b.dir
	if o.Deadline == 0 {
		o.Deadline = 6 * time.Second
	}
	g, err := guard.Start(t.Context(), b.binary, fs, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Thaw(context.Background()) })
	return g
}

// frozen starts a guard and freezes; it beats until the test's end or stop.
func (b *bed) frozen(t testing.TB, fs []guard.Filesystem, o guard.Options) *guard.Guard {
	t.Helper()
	g := b.start(t, fs, o)
	beat(t, g)
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	return g
}

func beat(t testing.TB, g *guard.Guard) {
	go func() {
		for tick := time.NewTicker(100 * time.Millisecond); ; <-tick.C {
			g.Beat()
			select {
			case <-g.Done():
				return
			case <-t.Context().Done():
				return
			default:
			}
		}
	}()
}

func thaw(t testing.TB, g *guard.Guard) guard.Result {
	t.Helper()
	res, err := g.Thaw(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// stop stops a process and waits until every thread has.
func stop(t testing.TB, pid int) {
	t.Helper()
	syscall.Kill(pid, syscall.SIGSTOP)
	for range 500 {
		if stopped(pid) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("process %d does not stop", pid)
}

func stopped(pid int) bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, path := range stats {
		if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), ") T ") {
			return false
		}
	}
	return len(stats) > 0
}

// wantEmpty checks that no state file is left.
func (b *bed) wantEmpty(t testing.TB) {
	t.Helper()
	left, err := os.ReadDir(b.dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left in the state directory: %v %v", left, err)
	}
}
