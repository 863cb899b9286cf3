package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// maxHeld bounds the log that waits to be written, in bytes.
const maxHeld = 256 << 10

// flushPatience is how long the end of the program waits for who reads the log.
const flushPatience = time.Second

// heldLog is where the log goes. Nobody who logs waits for it to be written: a
// goroutine of its own does that, for whoever reads the log may have stopped
// reading. While something is frozen nothing is written at all, since the
// reader may write to a disk that is frozen. It implements agent.Holder.
type heldLog struct {
	out io.Writer

	mu      sync.Mutex
	changed *sync.Cond   // of any field below; its lock is mu
	holding bool         // guarded by mu
	waiting bytes.Buffer // guarded by mu: not longer than maxHeld
	writing bool         // guarded by mu: what was waiting is on its way out
	lost    int          // guarded by mu: records that did not fit
}

func newHeldLog(out io.Writer) *heldLog {
	l := &heldLog{out: out}
	l.changed = sync.NewCond(&l.mu)
	go l.writeOn()
	return l
}

// Write takes one record. It never blocks.
func (l *heldLog) Write(record []byte) (int, error) { return l.take(record, maxHeld) }

// half is the log for records of which others decide how many there are: they get no
// more than half of the room, so that they never drive out what the daemon says.
type half struct{ *heldLog }

func (h half) Write(record []byte) (int, error) { return h.take(record, maxHeld/2) }

// take takes one record if there is not more waiting with it than the limit.
func (l *heldLog) take(record []byte, limit int) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting.Len()+len(record) > limit {
		l.lost++
		return len(record), nil
	}
	l.waiting.Write(record)
	l.changed.Broadcast()
	return len(record), nil
}

// Hold keeps what is written from now on, and returns when nothing is on its way
// out any more, or nobody takes it.
func (l *heldLog) Hold() {
	l.mu.Lock()
	l.holding = true
	l.mu.Unlock()
	l.await(flushPatience, func() bool { return !l.writing })
}

// Release lets what was kept be written.
func (l *heldLog) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holding = false
	l.changed.Broadcast()
}

// Flush waits until everything is written, if somebody takes it.
func (l *heldLog) Flush() {
	l.Release()
	l.await(flushPatience, func() bool { return l.waiting.Len() == 0 && !l.writing })
}

// await waits until done, which is asked with mu held, or the time is over.
func (l *heldLog) await(limit time.Duration, done func() bool) {
	over := false
	defer time.AfterFunc(limit, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		over = true
		l.changed.Broadcast()
	}).Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for !done() && !over {
		l.changed.Wait()
	}
}

// writeOn writes what waits, for as long as the program lives.
func (l *heldLog) writeOn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		for l.holding || l.waiting.Len() == 0 {
			l.changed.Wait()
		}
		text := bytes.Clone(l.waiting.Bytes())
		l.waiting.Reset()
		if l.lost > 0 {
			text = fmt.Appendf(text, "%d log records were lost: nothing could be written for too long\n", l.lost)
			l.lost = 0
		}
		l.writing = true
		l.mu.Unlock()
		_, _ = l.out.Write(text)
		l.mu.Lock()
		l.writing = false
		l.changed.Broadcast()
	}
}

func newLogger(c LogConfig, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // checked with the configuration
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
