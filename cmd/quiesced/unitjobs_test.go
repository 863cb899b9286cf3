package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// slowStart is how long the service takes to start: longer than the unit's
// TimeoutStopSec and its watchdog.
const slowStart = 8

// A daemon that is stopped in the window of a run at level stop starts the service
// first, and systemd gives it the time for that.
func TestUnitSetsServicesGoingBeforeItIsStopped(t *testing.T) {
	u := newUnit(t, func(*unit) string { return "WatchdogSec=3\n" }, func(text string) string {
		return text + "processes: {supervisor: systemd, systemd: {units: [worker]}}\nlevels: {manual: stop}\n"
	})
	delay := filepath.Join(u.dir, "delay")
	u.must(os.WriteFile(delay, []byte("0"), 0o600))
	text := fmt.Sprintf("[Service]\nType=notify\nNotifyAccess=all\nRestart=always\nExecStart=/bin/sh -c 'sleep $(cat %s); systemd-notify --ready; exec sleep 1000'\n", delay)
	u.must(os.WriteFile(u.m.Root()+"/run/systemd/system/worker.service", []byte(text), 0o600))
	u.m.Do("systemctl", "daemon-reload")
	u.m.Do("systemctl", "start", "worker", "quiesced")
	before := u.m.Property("worker", "MainPID")

	u.inWindow("run-1")
	if state := u.m.Property("worker", "ActiveState"); state != "inactive" {
		t.Errorf("the service is %s in the window", state)
	}
	u.must(os.WriteFile(delay, []byte(fmt.Sprint(slowStart)), 0o600))
	began := time.Now()
	u.m.Do("systemctl", "stop", "quiesced")
	if took := time.Since(began); took < slowStart*time.Second {
		t.Errorf("the daemon ended after %s, before the service can have started", took)
	}
	if result := u.property("Result"); result != "success" {
		t.Errorf("the daemon's unit ended with %s", result)
	}
	if state, now := u.m.Property("worker", "ActiveState"), u.m.Property("worker", "MainPID"); state != "active" || now == before {
		t.Errorf("the service is %s, as process %s (%s before)", state, now, before)
	}
	if u.frozen() {
		t.Error("the filesystem is frozen")
	}
	u.touch("go")
	u.m.Do("systemctl", "start", "quiesced")
	u.mustHave("run-1")
	if out := u.m.Do("quiesced", "status"); strings.Contains(out, "NOT GOING") {
		t.Error(out)
	}
}
