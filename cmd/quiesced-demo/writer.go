package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// recordSize is the length of a record, with its newline.
const recordSize = 64

// recordsFile is the writer's file on the disk.
const recordsFile = "records"

// record is the text of a record: its number, and filling up to recordSize.
func record(n int) string {
	head := fmt.Sprintf("%012d ", n)
	return head + strings.Repeat("=", recordSize-1-len(head)) + "\n"
}

// write appends numbered records until ctx ends, and prints a record's number
// once fsync says that it is safe.
func write(ctx context.Context, path string, acknowledge io.Writer) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for n := 1; ctx.Err() == nil; n++ {
		if _, err := f.WriteString(record(n)); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(acknowledge, n); err != nil {
			return err
		}
	}
	return nil
}

// writer is the running writer, seen from the demonstration.
type writer struct {
	cmd  *exec.Cmd
	once sync.Once
	done chan struct{} // closed when it acknowledges no more

	mu      sync.Mutex
	last    int           // guarded by mu: the last record acknowledged
	at      time.Time     // guarded by mu: when
	longest time.Duration // guarded by mu: the longest wait between two
}

// warmUp is how many records the writer writes before the show goes on.
const warmUp = 200

func (s *stage) startWriter(ctx context.Context) (*writer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &writer{done: make(chan struct{})}
	w.cmd = exec.Command(self, "write", filepath.Join(s.store, recordsFile))
	w.cmd.Stderr = os.Stderr
	numbers, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	s.later(w.stop)
	go w.follow(numbers)
	s.say("3. An application writes: numbered records, each fsynced and then acknowledged")
	for w.acknowledged() < warmUp {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-w.done:
			return nil, fmt.Errorf("the writer ended by itself")
		case <-time.After(10 * time.Millisecond):
		}
	}
	s.show("%d records so far, and it goes on", w.acknowledged())
	w.forgetWaits()
	return w, nil
}

func (w *writer) follow(numbers io.Reader) {
	defer close(w.done)
	lines := bufio.NewScanner(numbers)
	for lines.Scan() {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			return
		}
		w.mu.Lock()
		now := time.Now()
		if !w.at.IsZero() {
			w.longest = max(w.longest, now.Sub(w.at))
		}
		w.last, w.at = n, now
		w.mu.Unlock()
	}
}

func (w *writer) acknowledged() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

func (w *writer) forgetWaits() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.longest = 0
}

func (w *writer) longestWait() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.longest
}

// stop ends the writer and takes in what it still acknowledged.
func (w *writer) stop() error {
	w.once.Do(func() {
		_ = w.cmd.Process.Signal(os.Interrupt)
		select {
		case <-w.done:
		case <-time.After(endWait):
		}
		_ = end(w.cmd)
	})
	return nil
}
