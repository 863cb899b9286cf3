package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestLogOfTheWindowIsKeptUntilItsEnd(t *testing.T) {
	var out bytes.Buffer
	held := &heldLog{out: &out}
	log := newLogger(LogConfig{Level: "info", Format: "json"}, held)
	log.Info("before")
	held.Hold()
	log.Info("within")
	if got := out.String(); !strings.Contains(got, "before") || strings.Contains(got, "within") {
		t.Errorf("in the window the log is %q", got)
	}
	held.Release()
	log.Info("after")
	got := out.String()
	if b, w, a := strings.Index(got, "before"), strings.Index(got, "within"), strings.Index(got, "after"); b < 0 || w < b || a < w {
		t.Errorf("after the window the log is %q", got)
	}
}

func TestLogOfTheWindowIsBounded(t *testing.T) {
	var out bytes.Buffer
	held := &heldLog{out: &out}
	log := slog.New(slog.NewTextHandler(held, nil))
	held.Hold()
	for range 5000 {
		log.Info(strings.Repeat("x", 100))
	}
	if n := held.held.Len(); n > maxHeld {
		t.Errorf("%d bytes are kept", n)
	}
	held.Release()
	if got := out.String(); !strings.Contains(got, "log records of the frozen window did not fit into memory") {
		t.Error("nobody is told of the records that were lost")
	}
	held.Release()
	if strings.Count(out.String(), "did not fit") != 1 {
		t.Error("the loss is told of twice")
	}
}
