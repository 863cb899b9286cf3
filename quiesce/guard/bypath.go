package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Answers of a "thaw-path" run, beside "thawed" and "failed TEXT".
const (
	saysNotFrozen answerKind = "unfrozen"
	saysNotMount  answerKind = "unmounted"
)

// ErrNotFrozen is returned when there was nothing to thaw.
var ErrNotFrozen = errors.New("not frozen")

// ErrNotMount is returned for a path at which no filesystem is mounted.
var ErrNotMount = errors.New("not a mount point")

// ThawPath thaws the filesystem mounted at path, an absolute one, whoever froze
// it. A run of b does it, and the calling process touches the filesystem by no
// system call that could block. Errors match [ErrNotFrozen], [ErrNotMount], or
// [ErrStuck] when FITHAW did not return in time; it is made all the same as soon
// as the kernel can.
func ThawPath(ctx context.Context, b *Binary, path string) error {
	ctx, cancel := context.WithTimeout(ctx, childPatience)
	defer cancel()
	answers, stdout, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("cannot thaw %q: %w", path, err)
	}
	cmd := b.command(nil, []string{"thaw-path", path})
	cmd.Stdout = stdout
	err = cmd.Start()
	stdout.Close()
	if err != nil {
		answers.Close()
		return fmt.Errorf("cannot run the guard: %w", err)
	}
	last := make(chan reply, 1)
	go listenToEnd(cmd, answers, last)
	select {
	case r := <-last:
		return r.ofThaw(path)
	case <-ctx.Done():
		return &StuckError{Paths: []string{path}, Stack: stacks(cmd.Process.Pid)}
	}
}

// listenToEnd passes on what a run said last, and waits for its end.
func listenToEnd(cmd *exec.Cmd, answers *os.File, last chan<- reply) {
	var r reply
	readAnswers(answers, func(one reply) { r = one })
	answers.Close()
	_ = cmd.Wait()
	last <- r
}

// ofThaw is the answer of a "thaw-path" run as an error.
func (r reply) ofThaw(path string) error {
	switch r.kind {
	case saysThawed:
		return nil
	case saysNotFrozen:
		return fmt.Errorf("%q is %w", path, ErrNotFrozen)
	case saysNotMount:
		return fmt.Errorf("%q is %w", path, ErrNotMount)
	}
	return fmt.Errorf("cannot thaw %q: %s", path, r.text)
}

// thawPath is the "thaw-path" run. A link is followed: it is a person who names
// the path.
func thawPath(path string) int {
	said := thawMount(path)
	if said.kind == saysFailed {
		answer("failed " + said.text)
		return exitFailed
	}
	answer(string(said.kind))
	return exitThawed
}

func thawMount(path string) reply {
	failed := func(err error) reply { return reply{kind: saysFailed, text: err.Error()} }
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return failed(err)
	}
	fd, err := openDirectory(path)
	if err != nil {
		return failed(err)
	}
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, 0, &st); err != nil {
		return failed(err)
	}
	if st.Attributes_mask&st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return reply{kind: saysNotMount}
	}
	switch errno := ioctl(fd, fiThaw); errno {
	case 0:
		return reply{kind: saysThawed}
	case unix.EINVAL:
		return reply{kind: saysNotFrozen}
	default:
		return failed(errno)
	}
}
