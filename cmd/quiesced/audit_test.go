package main

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/quiesced/quiesced/agent/audit"
)

var event = audit.Event{Method: `a|b`, By: "x=y", From: "10.0.0.6:4222", ID: "run-1", Failed: "busy"}

// A level that keeps everything else out of the log does not keep these.
func TestAuditIsInTheLogAsItIs(t *testing.T) {
	var out bytes.Buffer
	newAudit(LogConfig{Level: "error", Format: "text"}, &out)(event)
	want := regexp.MustCompile(`^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ` + regexp.QuoteMeta(event.String()) + "\n$")
	if !want.Match(out.Bytes()) {
		t.Errorf("the log has %q, want %s", &out, want)
	}
}

func TestAuditIsTheMessageOfARecordInJSON(t *testing.T) {
	var out bytes.Buffer
	newAudit(LogConfig{Level: "error", Format: "json"}, &out)(event)
	var record struct{ Msg string }
	if err := json.Unmarshal(out.Bytes(), &record); err != nil || record.Msg != event.String() {
		t.Errorf("the log has %q, %v", &out, err)
	}
}

func TestWhatCallersDoLeavesRoomForWhatTheDaemonSays(t *testing.T) {
	var out bytes.Buffer
	held := newHeldLog(&out)
	held.Hold()
	told := newAudit(LogConfig{Format: "text"}, half{held})
	for range 2 * maxHeld / len(event.String()) {
		told(event)
	}
	if n := held.waiting.Len(); n > maxHeld/2 {
		t.Errorf("%d bytes are kept", n)
	}
	newLogger(LogConfig{Format: "text"}, held).Info("thawed")
	held.Flush()
	held.Flush()
	if got := out.String(); !strings.Contains(got, "thawed") || !strings.Contains(got, "log records were lost") {
		t.Errorf("the log ends with %q", got[max(0, len(got)-500):])
	}
}
