package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// metricsText is what the daemon answers on its socket to the method metrics.
func (w *world) metricsText() string {
	w.t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(w.dir, "run", "q.sock"))
	}}}
	defer client.CloseIdleConnections()
	answer, err := client.Post("http://quiesced/v1/metrics", "application/json", nil)
	w.must(err)
	defer answer.Body.Close()
	var text struct{ Value string }
	w.must(json.NewDecoder(answer.Body).Decode(&text))
	return text.Value
}

// A thaw that is stuck behind something else keeps nobody from the daemon, and
// is made good when it can be, whatever else the daemon waits for.
func TestStuckFreezeKeepsNobodyFromTheDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	upper := w.nested()
	w.configure(func(text string) string { return strings.Replace(text, "["+w.store+"]", "["+upper+"]", 1) })
	w.script(paused("snap-1"))
	w.start()
	verb := w.begin("take-snapshot", "--level", "freeze", "--id", "cut")
	w.eventually("the CPI is called", func() bool { return w.exists("called") })
	killAll(t, w)
	verb()
	w.fsfreeze("-f", w.store) // below: the thaw of the upper one has to write there

	began := time.Now()
	w.start()
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("the daemon answers after %s", took)
	}
	w.mustSay(w.run("status"), exitOK, "NOT THAWED", upper)
	if text := w.metricsText(); !strings.Contains(text, "\nquiesced_stuck_filesystems 1\n") {
		t.Error("the metrics do not show it")
	}
	for range 8 { // in every moment of the trying again
		w.mustSay(w.run("take-snapshot", "--level", "sync"), exitRefused, "still frozen from before", upper)
		time.Sleep(time.Second)
	}

	w.fsfreeze("-u", w.store)
	w.eventually("it is thawed while the CPI is waited for", func() bool {
		return !strings.Contains(w.run("status").out, "NOT THAWED")
	})
	w.touch("go")
	w.eventually("the run is reported", func() bool { return len(w.runs()) == 1 })
	if all := w.snapshots(); len(all) != 1 || all[0].CID != "snap-1" || all[0].Clean {
		t.Errorf("snapshots are %+v", all)
	}
	_, report := w.take("--level", "freeze")
	if report.Outcome != "succeeded" && !strings.Contains(report.Error, "snap-1") { // this CPI has one CID alone
		t.Errorf("report is %+v", report)
	}
	w.mustBeGoing()
}

// A guard that is stopped keeps no deadline. The daemon takes over from it.
func TestStoppedGuardBesideAHangingCPIIsTakenOverFrom(t *testing.T) {
	w, verb := inWindow(t, with("budgets: {frozen: 1s}\n"))
	guard := w.guardProcess("cut")
	w.must(guard.Signal(syscall.SIGSTOP))
	w.eventually("the daemon thaws", func() bool { return !w.frozen() })
	w.touch("go")
	r := verb()
	report := w.report(r)
	w.mustSay(r, exitFailed, "the guard did not thaw at its deadline")
	if report.Clean || len(report.Thaws) != 1 || report.Thaws[0].Cause != "recovered" || report.Thaws[0].State != "thawed" {
		t.Errorf("report is %+v", report)
	}
	if all := w.snapshots(); len(all) != 1 || all[0].CID != "snap-1" || all[0].Clean {
		t.Errorf("snapshots are %+v", all)
	}
	w.mustBeGoing()
}

// What a record that cannot be read is of may still be frozen.
func TestUnreadableRecordRefusesRunsUntilItIsGone(t *testing.T) {
	w := newWorld(t)
	record := filepath.Join(w.dir, "run", "guard-gone.state")
	w.must(os.MkdirAll(filepath.Dir(record), 0o700))
	w.must(os.WriteFile(record, []byte("no record"), 0o600))
	w.start()
	w.mustSay(w.run("status"), exitOK, "NOT THAWED", record)
	w.mustSay(w.run("take-snapshot", "--level", "freeze"), exitRefused, "still frozen from before", record)
	w.must(os.Remove(record))
	w.eventually("it is looked at again", func() bool { return !strings.Contains(w.run("status").out, "NOT THAWED") })
	r, _ := w.take("--level", "freeze")
	w.mustSay(r, exitOK)
	w.mustBeGoing()
}
