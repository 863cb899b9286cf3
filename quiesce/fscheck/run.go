package fscheck

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	searched = "/usr/sbin:/usr/bin:/sbin:/bin"

	// grace is what a program that was killed is given to end. One that is held up in the
	// kernel ends when it can.
	grace = 5 * time.Second

	// maxOutput bounds what is kept of what a program prints, in bytes.
	maxOutput = 4 << 10
)

// ran is what came of a program.
type ran struct {
	program string
	status  int
	text    string // the end of what it printed
}

// failed is the error of a program whose exit status tells of none that is its own.
func (r ran) failed() error {
	return fmt.Errorf("%s ended with exit status %d: %s", r.program, r.status, r.text)
}

// packages are those of Debian and Ubuntu that programs are in.
var packages = map[string]string{
	"e2fsck": "e2fsprogs", "xfs_repair": "xfsprogs", "btrfs": "btrfs-progs",
	"blkid": "util-linux", "partx": "util-linux", unshare: "util-linux",
}

// look is the path of a program.
func look(program string) (string, error) {
	for dir := range strings.SplitSeq(searched, ":") {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", &MissingError{program, packages[program]}
}

// run runs a program to its end, with low priority. It is killed when ctx ends, or when
// this process does.
func run(ctx context.Context, program string, args ...string) (ran, error) {
	path, err := look(program)
	if err != nil {
		return ran{}, err
	}
	out := &tail{}
	gently := append([]string{"-n", "10", "ionice", "-c", "3", path}, args...)
	cmd := exec.CommandContext(ctx, "/usr/bin/nice", gently...)
	cmd.Env = []string{"PATH=" + searched, "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = grace
	if err := wait(ctx, cmd); err != nil {
		return ran{}, fmt.Errorf("%s %w", program, err)
	}
	return ran{program, cmd.ProcessState.ExitCode(), out.String()}, nil
}

// wait runs a command. The error is nil where it ended by itself, with whatever status.
func wait(ctx context.Context, cmd *exec.Cmd) error {
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // its end is what the death signal follows
		defer runtime.UnlockOSThread()
		ended <- cmd.Run()
	}()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		select {
		case err = <-ended:
		case <-time.After(2 * grace):
			return fmt.Errorf("was ended, but is held up in the kernel: %w", context.Cause(ctx))
		}
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil && err != nil:
		return fmt.Errorf("was ended: %w", context.Cause(ctx))
	case err == nil, errors.As(err, &exit) && exit.Exited():
		return nil
	case exit != nil:
		return fmt.Errorf("was killed by signal %d", int(exit.Sys().(syscall.WaitStatus).Signal()))
	}
	return fmt.Errorf("cannot be run: %w", err)
}

// tail keeps the end of what is written to it. Stdout and stderr being one writer,
// one goroutine at a time writes.
type tail struct{ kept []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - maxOutput; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	return strings.TrimSpace(strings.ToValidUTF8(string(t.kept), "\uFFFD"))
}
