package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"sync"
)

// maxHeld bounds the log of one frozen window, in bytes.
const maxHeld = 64 << 10

// heldLog is where the log goes. While something is frozen it keeps what is
// written in memory: whoever reads the log may write it to a disk that is frozen,
// and the daemon would wait for itself. It implements agent.Holder.
type heldLog struct {
	out io.Writer

	mu      sync.Mutex
	holding bool         // guarded by mu
	held    bytes.Buffer // guarded by mu
	lost    int          // guarded by mu: records that did not fit
}

// Write writes one record, or keeps it.
func (l *heldLog) Write(record []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.holding:
		return l.out.Write(record)
	case l.held.Len()+len(record) > maxHeld:
		l.lost++
	default:
		l.held.Write(record)
	}
	return len(record), nil
}

// Hold keeps what is written from now on.
func (l *heldLog) Hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holding = true
}

// Release writes what was kept.
func (l *heldLog) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holding = false
	_, _ = l.held.WriteTo(l.out)
	if l.lost > 0 {
		_, _ = fmt.Fprintf(l.out, "%d log records of the frozen window did not fit into memory\n", l.lost)
		l.lost = 0
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
