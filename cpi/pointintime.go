package cpi

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

// maxLine bounds what is kept of an unfinished line of stderr, in bytes.
const maxLine = 64 << 10

// WatchPointInTime makes PointInTime close as soon as the CPI's output shows
// that the snapshot's contents are fixed: a line of stderr matches the pattern
// (nil for none), or stdout holds a whole answer. It is to be called between
// Prepare and Send, and opens everything that the watching needs.
func (c *Call) WatchPointInTime(pattern *regexp.Regexp) error {
	w, err := newWatcher(c.output, pattern)
	if err != nil {
		return fmt.Errorf("cannot watch what the CPI prints: %w", err)
	}
	go func() {
		if w.wait() {
			c.fix()
		}
	}()
	go func() {
		<-c.ended
		w.close()
	}()
	return nil
}

// PointInTime is closed when what the snapshot holds is fixed and nothing has to
// be kept at rest for it any more: when WatchPointInTime saw so, or else when the
// process has ended. Whether there is a snapshot only Wait tells.
func (c *Call) PointInTime() <-chan struct{} { return c.fixed }

func (c *Call) fix() { c.fixing.Do(func() { close(c.fixed) }) }

// watcher follows what a CPI prints to its two files.
type watcher struct {
	events         *os.File // inotify, of the directory
	stdout, stderr *os.File
	pattern        *regexp.Regexp
	line           []byte // of stderr, without its end
}

func newWatcher(o output, pattern *regexp.Regexp) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &watcher{events: os.NewFile(uintptr(fd), "inotify"), pattern: pattern}
	if _, err := unix.InotifyAddWatch(fd, o.dir, unix.IN_MODIFY); err != nil {
		w.close()
		return nil, os.NewSyscallError("inotify_add_watch", err)
	}
	if w.stdout, err = os.Open(filepath.Join(o.dir, stdoutName)); err == nil {
		w.stderr, err = os.Open(filepath.Join(o.dir, stderrName))
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// close ends wait.
func (w *watcher) close() {
	_ = w.events.Close()
	_ = w.stdout.Close()
	_ = w.stderr.Close()
}

// wait returns true when the output shows that the contents are fixed, and false
// when the watcher was closed before.
func (w *watcher) wait() bool {
	events := make([]byte, 4096) // what they say does not matter
	for {
		if w.matched() || w.answered() {
			return true
		}
		if _, err := w.events.Read(events); err != nil {
			return false
		}
	}
}

// answered says whether stdout holds a whole answer, be it an error.
func (w *watcher) answered() bool {
	info, err := w.stdout.Stat()
	if err != nil || info.Size() > maxAnswer {
		return false
	}
	text := make([]byte, info.Size())
	n, _ := w.stdout.ReadAt(text, 0)
	text = bytes.TrimSpace(text[:n])
	if !bytes.HasSuffix(text, []byte("}")) {
		return false
	}
	_, err = ParseResponse(text)
	return err == nil || errors.As(err, new(*Error))
}

// matched reads on in stderr and says whether a finished line matches.
func (w *watcher) matched() bool {
	if w.pattern == nil {
		return false
	}
	chunk := make([]byte, maxLine)
	for {
		n, _ := w.stderr.Read(chunk)
		if n == 0 {
			return false
		}
		w.line = append(w.line, chunk[:n]...)
		for {
			line, rest, whole := bytes.Cut(w.line, []byte("\n"))
			if !whole {
				break
			}
			w.line = rest
			if w.pattern.Match(line) {
				return true
			}
		}
		w.line = w.line[max(0, len(w.line)-maxLine):]
	}
}
