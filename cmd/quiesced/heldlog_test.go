package main

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLogOfTheWindowIsKeptUntilItsEnd(t *testing.T) {
	var out bytes.Buffer
	held := newHeldLog(&out)
	log := newLogger(LogConfig{Level: "info", Format: "json"}, held)
	log.Info("before")
	held.Flush()
	held.Hold()
	log.Info("within")
	if got := out.String(); !strings.Contains(got, "before") || strings.Contains(got, "within") {
		t.Errorf("in the window the log is %q", got)
	}
	held.Release()
	log.Info("after")
	held.Flush()
	got := out.String()
	if b, w, a := strings.Index(got, "before"), strings.Index(got, "within"), strings.Index(got, "after"); b < 0 || w < b || a < w {
		t.Errorf("after the window the log is %q", got)
	}
}

func TestLogThatWaitsIsBounded(t *testing.T) {
	var out bytes.Buffer
	held := newHeldLog(&out)
	log := slog.New(slog.NewTextHandler(held, nil))
	held.Hold()
	for range 5000 {
		log.Info(strings.Repeat("x", 100))
	}
	if n := held.waiting.Len(); n > maxHeld {
		t.Errorf("%d bytes are kept", n)
	}
	held.Flush()
	held.Flush()
	if got := out.String(); strings.Count(got, "log records were lost") != 1 {
		t.Errorf("the loss is told of %d times", strings.Count(got, "log records were lost"))
	}
}

func TestNobodyWaitsForAReaderThatStoppedReading(t *testing.T) {
	reader, writer := io.Pipe() // nobody reads
	defer reader.Close()
	held := newHeldLog(writer)
	log := slog.New(slog.NewTextHandler(held, nil))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 5000 {
			log.Info(strings.Repeat("x", 100))
		}
		held.Hold()
		held.Flush()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("logging waits for the reader")
	}
}
