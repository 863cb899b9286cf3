package quiesce_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/quiesce"
)

// playMapper is this test binary run again: it maps a file, closes it, and says so.
// Once told to, it stores there all the time, and changes its mappings.
func playMapper(path, sharing string) int {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = f.Truncate(1 << 20)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	how := map[string]int{"shared": unix.MAP_SHARED, "private": unix.MAP_PRIVATE}[sharing]
	memory, err := unix.Mmap(int(f.Fd()), 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, how)
	f.Close()
	fmt.Println(os.Getpid(), err)
	for {
		if _, err := os.Stat(path + "-go"); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	go func() {
		for i := 0; ; i++ {
			memory[i%len(memory)]++
		}
	}()
	for {
		more, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err == nil {
			unix.Munmap(more)
		}
	}
}

// stranger starts a process that is not ours: its parent ends at once. It prints
// its id, and is ended with the test.
func stranger(t testing.TB, args ...string) int {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	defer out.Close()
	cmd := exec.Command("sh", append([]string{"-c", `setsid "$@" </dev/null 2>&1 &`, "sh"}, args...)...)
	cmd.Stdout = out
	must(t, cmd.Run())
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(out.Name())
		must(t, err)
		if line, _, ok := strings.Cut(string(text), "\n"); ok {
			first, _, _ := strings.Cut(line, " ")
			pid, err := strconv.Atoi(first)
			must(t, err)
			t.Cleanup(func() { endStranger(t, pid) })
			return pid
		}
		if time.Now().After(until) {
			t.Fatalf("%q does not begin: %q", args, text)
		}
	}
}

// endStranger ends what leads a process group, and that with it.
func endStranger(t testing.TB, pid int) {
	must(t, syscall.Kill(-pid, syscall.SIGKILL))
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		if exec.Command("pgrep", "-g", strconv.Itoa(pid), "-r", "R,S,D,T").Run() != nil {
			return
		}
	}
	t.Errorf("process %d does not end", pid)
}

// holding has a shell hold descriptors as its redirections say.
func holding(t testing.TB, redirections string) int {
	t.Helper()
	return stranger(t, "sh", "-c", "exec "+redirections+"; echo $$; while :; do sleep 600; done")
}

func writers(t testing.TB, mounts ...string) []quiesce.Writer {
	t.Helper()
	got, held := look(t, find(t, mounts...))
	if len(held) > 0 {
		t.Errorf("held up: %v", held)
	}
	return got
}

// look lists the writers and the processes that are held up. In a container the
// first process may be one that is shown to nobody.
func look(t testing.TB, filesystems []quiesce.Filesystem) (writers []quiesce.Writer, held []int) {
	t.Helper()
	writers, err := quiesce.System{}.Writers(filesystems)
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		must(t, err)
		return writers, nil
	}
	for _, err := range joined.Unwrap() {
		unseen, ok := errors.AsType[*quiesce.UnseenError](err)
		switch {
		case !ok:
			t.Errorf("got %v", err)
		case errors.Is(err, quiesce.ErrHeldUp):
			held = append(held, unseen.PID)
		case unseen.PID != 1 || !errors.Is(err, fs.ErrPermission):
			t.Errorf("got %v", err)
		}
	}
	return writers, held
}

// ofPID passes over what else a shell has started.
func ofPID(all []quiesce.Writer, pid int) []quiesce.Writer {
	var found []quiesce.Writer
	for _, w := range all {
		if w.PID == pid {
			found = append(found, w)
		}
	}
	return found
}

func TestProcessesThatCanWriteAreListed(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fstype, func(t *testing.T) {
			f := makeFS(t, t.TempDir(), "store", fstype)
			in := f.Mount + "/in"
			if fstype == "btrfs" {
				run(t, "btrfs", "-q", "subvolume", "create", in)
			} else {
				must(t, os.Mkdir(in, 0o755))
			}
			must(t, os.WriteFile(in+"/file", nil, 0o600))
			must(t, syscall.Mkfifo(in+"/fifo", 0o600))
			for name, c := range map[string]struct {
				start func() int
				path  string // "" for none
				files int
			}{
				"open for writing":          {func() int { return holding(t, "9>"+in+"/file") }, in + "/file", 1},
				"open for appending":        {func() int { return holding(t, "9>>"+in+"/file") }, in + "/file", 1},
				"open for both":             {func() int { return holding(t, "9<>"+in+"/file") }, in + "/file", 1},
				"open twice":                {func() int { return holding(t, "9>"+in+"/file 8>&9") }, in + "/file", 1},
				"two open":                  {func() int { return holding(t, "9>"+in+"/file 8>'"+in+"/a b'") }, in + "/a b", 2},
				"removed while it is open":  {func() int { return holding(t, "9>"+in+"/gone && rm "+in+"/gone") }, in + "/gone (deleted)", 1},
				"open for reading":          {func() int { return holding(t, "9<"+in+"/file") }, "", 0},
				"a FIFO":                    {func() int { return holding(t, "9<>"+in+"/fifo") }, "", 0},
				"elsewhere":                 {func() int { return holding(t, "9>"+t.TempDir()+"/file") }, "", 0},
				"mapped shared":             {func() int { return stranger(t, os.Args[0], "mapper", in+"/map ped", "shared") }, in + "/map ped", 1},
				"mapped private":            {func() int { return stranger(t, os.Args[0], "mapper", in+"/mapped", "private") }, "", 0},
				"a working directory alone": {func() int { return stranger(t, "sh", "-c", "cd "+in+"; echo $$; while :; do sleep 600; done") }, "", 0},
			} {
				t.Run(name, func(t *testing.T) {
					pid := c.start()
					got := ofPID(writers(t, f.Mount), pid)
					var want []quiesce.Writer
					if c.path != "" {
						want = []quiesce.Writer{{PID: pid, Path: c.path, Files: c.files}}
					}
					if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(quiesce.Writer{}, "Command")); diff != "" {
						t.Errorf("-want +got:\n%s", diff)
					}
				})
			}
		})
	}
}

func TestWriterIsNamedAsTheKernelNamesIt(t *testing.T) {
	f := makeFS(t, t.TempDir(), "store", "ext4")
	pid := holding(t, "9>"+f.Mount+"/file")
	got := ofPID(writers(t, f.Mount), pid)
	if len(got) != 1 || got[0].Command != "sh" {
		t.Errorf("got %+v", got)
	}
}

func TestWeAreNoWritersOurselves(t *testing.T) {
	f := makeFS(t, t.TempDir(), "store", "ext4")
	file, err := os.Create(f.Mount + "/file")
	must(t, err)
	defer file.Close()
	cmd := exec.Command("sh", "-c", "sh -c 'echo up; read end'; exit")
	cmd.Stderr = file
	inProcess(t, cmd, f.Mount)
	if got := writers(t, f.Mount); len(got) > 0 {
		t.Errorf("got %+v", got)
	}
}

func TestWriterInAnotherMountNamespaceIsListed(t *testing.T) {
	dir := t.TempDir()
	loop := partitioned(t, dir, 2)
	ours := mount(t, dir+"/1", loop+"p1")
	script := `mount "$1" "$2" && exec 9>"$2/file" && echo $$ && while :; do sleep 600; done`
	must(t, os.Mkdir(dir+"/2", 0o755))
	pid := stranger(t, "unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", loop+"p2", dir+"/2")
	want := []quiesce.Writer{{PID: pid, Command: "sh", Path: dir + "/2/file", Files: 1}}
	if diff := cmp.Diff(want, ofPID(writers(t, ours), pid)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestWriterOnWhatWasUnmountedLazilyIsListed(t *testing.T) {
	dir := t.TempDir()
	f := makeFS(t, dir, "store", "ext4")
	again := dir + "/again"
	must(t, os.Mkdir(again, 0o755))
	run(t, "mount", "--bind", f.Mount, again)
	pid := holding(t, "9>"+again+"/file")
	run(t, "umount", "-l", again)
	got := ofPID(writers(t, f.Mount), pid)
	if len(got) != 1 || filepath.Base(got[0].Path) != "file" {
		t.Errorf("got %+v", got)
	}
}

// Whether or not the kernel lets anybody look at a process that it holds up, nobody
// waits for it.
func TestWritersAreListedWhileTheFilesystemIsFrozen(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fstype, func(t *testing.T) {
			f := makeFS(t, t.TempDir(), "store", fstype)
			found := find(t, f.Mount)
			opened := stranger(t, "sh", "-c", "exec 9>"+f.Mount+"/file; echo $$; while :; do echo >&9; done")
			mapper := stranger(t, os.Args[0], "mapper", f.Mount+"/mapped", "shared")
			must(t, os.WriteFile(f.Mount+"/mapped-go", nil, 0o600))
			whileFrozen(t, f.Mount, func() {
				time.Sleep(200 * time.Millisecond) // for both to be held up
				got, held := look(t, found)
				if len(ofPID(got, opened)) != 1 {
					t.Errorf("got %+v", got)
				}
				if len(ofPID(got, mapper)) != 1 && !slices.Contains(held, mapper) {
					t.Errorf("got %+v, held up: %v", got, held)
				}
			})
		})
	}
}
