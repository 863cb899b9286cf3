package processes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Watch waits for the ends of processes. It is used by one goroutine.
type Watch struct {
	open map[Process]int // pidfds
	wake *os.File        // an eventfd: a context has ended
}

// NewWatch watches nothing yet.
func NewWatch() (*Watch, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("cannot make an eventfd: %w", err)
	}
	return &Watch{open: map[Process]int{}, wake: os.NewFile(uintptr(fd), "eventfd")}, nil
}

// Add has processes watched. Those that have ended already are passed over.
func (w *Watch) Add(all ...Process) error {
	for _, p := range all {
		if _, ok := w.open[p]; ok {
			continue
		}
		fd, err := unix.PidfdOpen(p.PID, 0)
		if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
			continue // it has ended, EINVAL: and the pid is now that of a thread
		}
		if err != nil {
			return fmt.Errorf("cannot open process %d: %w", p.PID, err)
		}
		if !Alive(p) {
			_ = unix.Close(fd)
			continue
		}
		w.open[p] = fd
	}
	return nil
}

// Alive says whether p is watched and has not ended, as far as Wait has seen.
func (w *Watch) Alive(p Process) bool {
	_, ok := w.open[p]
	return ok
}

// Wait returns when a process has ended, after d, or when ctx ends.
func (w *Watch) Wait(ctx context.Context, d time.Duration) error {
	stop := context.AfterFunc(ctx, func() { _, _ = w.wake.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0}) })
	defer stop()
	fds := []unix.PollFd{{Fd: int32(w.wake.Fd()), Events: unix.POLLIN}}
	order := make([]Process, 1, len(w.open)+1)
	for p, fd := range w.open {
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		order = append(order, p)
	}
	_, err := unix.Poll(fds, int((d + time.Millisecond - 1).Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("cannot wait for %d processes: %w", len(w.open), err)
	}
	for i := 1; i < len(fds) && err == nil; i++ {
		if fds[i].Revents != 0 {
			_ = unix.Close(w.open[order[i]])
			delete(w.open, order[i])
		}
	}
	return ctx.Err()
}

// Close watches nothing any more.
func (w *Watch) Close() error {
	for _, fd := range w.open {
		_ = unix.Close(fd)
	}
	w.open = map[Process]int{}
	return w.wake.Close()
}
