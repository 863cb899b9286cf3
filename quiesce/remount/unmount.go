package remount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/quiesce"
	"github.com/quiesced/quiesced/quiesce/failpoint"
)

// BusyError says who keeps a disk from being unmounted.
type BusyError struct {
	Point   string // a mount point of it
	Holders []quiesce.Holder
	Err     error
}

func (e *BusyError) Error() string {
	if len(e.Holders) == 0 {
		return fmt.Sprintf("cannot unmount %q: %v, and nobody can be seen who uses it", e.Point, e.Err)
	}
	var all []string
	for _, h := range e.Holders {
		all = append(all, h.String())
	}
	return fmt.Sprintf("cannot unmount %q: %v: %s", e.Point, e.Err, strings.Join(all, "; "))
}

func (e *BusyError) Unwrap() error { return e.Err }

const (
	// patience is how long a disk may be in use still: processes that have just ended,
	// and mount namespaces with them, let go a little later.
	patience = 10 * time.Second

	lookAgain = 50 * time.Millisecond
)

var errInUse = errors.New("it is in use")

// Unmount unmounts all mounts of a disk, the last first, and returns when nobody has the
// disk any more, in no mount namespace. What is not mounted is left alone. The error is
// *BusyError where somebody uses it; some of the mounts may be gone by then.
func (d *Disk) Unmount(ctx context.Context) error {
	if len(d.Mounts) == 0 {
		return nil
	}
	// Held open, a loop device stays the one it is, whose use can be asked for.
	held, err := d.open()
	if err != nil {
		return err
	}
	if held != nil {
		defer func() { _ = held.Close() }()
	}
	deadline := time.Now().Add(patience)
	for _, m := range slices.Backward(d.Mounts) {
		if err := d.unmount(ctx, m.Point, deadline); err != nil {
			return err
		}
		failpoint.Hit("unmounting")
	}
	if held == nil {
		return nil
	}
	err = awaitFree(ctx, held.Name(), time.Now().Add(patience)) // writing out took its time
	if errors.Is(err, errInUse) {
		return d.busy(d.Mounts[0].Point, err)
	}
	return err
}

func (d *Disk) busy(point string, err error) error {
	return &BusyError{Point: point, Holders: quiesce.System{}.Holders(d.Superblock), Err: err}
}

// open opens the disk's device, nil for one that is none.
func (d *Disk) open() (*os.File, error) {
	path := device(d.Superblock)
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open the disk's device: %w", err)
	}
	return f, nil
}

// unmount unmounts what of the disk is mounted at a mount point. A umount(8) that is ended
// while it writes out does so all the same: the mount table has the last word.
func (d *Disk) unmount(ctx context.Context, point string, deadline time.Time) error {
	var why error // of the last attempt
	for {
		table, err := read()
		if err != nil {
			return err
		}
		if m := top(table, point); m == nil || superblock(m) != d.Superblock {
			return nil
		}
		if why == nil {
			why = context.Cause(ctx)
		}
		if ctx.Err() != nil || why != nil && time.Now().After(deadline) {
			return d.busy(point, why)
		}
		if err = run(ctx, "umount", point); err == nil {
			return nil
		}
		if ctx.Err() == nil {
			why = err
			time.Sleep(lookAgain)
		}
	}
}

// awaitFree waits until nobody has a device for himself, as each filesystem on it has.
func awaitFree(ctx context.Context, device string, deadline time.Time) error {
	for {
		fd, err := unix.Open(device, unix.O_RDONLY|unix.O_EXCL|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil {
			return unix.Close(fd)
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("cannot tell whether %s is in use still: %w", device, err)
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return errInUse
		}
		time.Sleep(lookAgain)
	}
}

// run runs a program. Its error has what the program printed.
func run(ctx context.Context, name string, args ...string) error {
	return execute(ctx, exec.CommandContext(ctx, name, args...), 0)
}

// execute runs a program with clone(2)'s flags.
func execute(ctx context.Context, cmd *exec.Cmd, flags uintptr) error {
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Unshareflags: flags}
	cmd.WaitDelay = time.Second
	out, err := bounded(ctx, cmd.CombinedOutput)
	if err == nil {
		return nil
	}
	if said := strings.Join(strings.Fields(string(out)), " "); said != "" {
		return fmt.Errorf("%s (%w)", said, err)
	}
	return fmt.Errorf("%s: %w", cmd.Args[0], err)
}

// grace is what is waited beyond a context's end. What was ended then is held up in the
// kernel, and ends when it can.
const grace = 2 * time.Second

// bounded does what the kernel may hold up, and waits for it little longer than ctx lasts.
func bounded[T any](ctx context.Context, do func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	ended := make(chan result, 1)
	go func() {
		value, err := do()
		ended <- result{value, err}
	}()
	var r result
	select {
	case r = <-ended:
	case <-ctx.Done():
		select {
		case r = <-ended:
		case <-time.After(grace):
			r.err = fmt.Errorf("it is held up in the kernel: %w", context.Cause(ctx))
		}
	}
	return r.value, r.err
}
