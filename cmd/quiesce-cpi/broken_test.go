package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// waits is a script that answers with snap-1 when the test lets it.
var waits = "echo working >&2\ntouch $D/called\nawait answer\n" + answered("snap-1")

// beginHeld begins a call and returns when its CPI runs with the disk frozen.
func (w *world) beginHeld(request string) *call {
	w.t.Helper()
	c := w.begin(request)
	w.eventually("the CPI is called", func() bool { return w.exists("called") })
	if !w.frozen() {
		w.t.Fatal("the CPI was called and the disk is not frozen")
	}
	return c
}

func TestADaemonKilledInAHoldCostsTheRestAndNotTheSnapshot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, waits, "policy: fail")
	alerts := w.alerts()
	c := w.beginHeld(w.request("disk-1"))
	w.kill()
	w.mustThaw()
	w.signalCPI("answer")
	time.Sleep(200 * time.Millisecond) // so that the daemon's end is noticed
	w.start(w.bus.URL("agent"))
	a := w.endOf(c)
	w.mustAnswer(a, "snap-1")
	w.contains("stderr", a.stderr, "working\n", `snapshot "snap-1" of disk "disk-1"`, "the hold was broken", "in spite of policy fail")
	w.mustAlert(alerts, "snap-1", "the hold was broken")
	w.mustCatalogue("snap-1", false)
}

func TestADaemonThatNeverComesBackIsNotWaitedForLongerThanTheLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, waits, "")
	alerts := w.alerts()
	c := w.beginHeld(w.request("disk-1"))
	w.kill()
	w.mustThaw()
	w.signalCPI("answer")
	a := w.endOf(c)
	w.mustAnswer(a, "snap-1")
	w.mustAlert(alerts, "snap-1", "not known")
	if a.took > 10*time.Second {
		t.Errorf("it took %v", a.took)
	}
}

func TestADaemonThatHangsInAHoldCostsTheRestAndNotTheSnapshot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, waits, "")
	alerts := w.alerts()
	c := w.beginHeld(w.request("disk-1"))
	w.signal(syscall.SIGSTOP)
	w.mustThaw() // by the guard
	w.signalCPI("answer")
	time.Sleep(500 * time.Millisecond)
	w.signal(syscall.SIGCONT)
	a := w.endOf(c)
	w.mustAnswer(a, "snap-1")
	w.contains("stderr", a.stderr, "the hold was broken")
	w.mustAlert(alerts, "snap-1", "the hold was broken")
	w.mustCatalogue("snap-1", false)
}

// quiesce-cpi may be killed whenever it likes: the lease sets the VM going, and what the
// real CPI does meanwhile is its own affair, as if a director had died.
func TestQuiesceCPIKilledLeavesTheVMToTheLease(t *testing.T) {
	t.Parallel()
	const goesOn = "\ntouch $D/called\nawait answer\ntouch $D/went-on\n"
	for _, tt := range []struct {
		name    string
		script  string // of the CPI; "" where it is not to be called
		reached func(w *world) bool
	}{
		{"while the VM is brought to rest", "", func(w *world) bool { return w.exists("bringing") }},
		{"while the CPI works", goesOn, func(w *world) bool { return w.exists("called") }},
		{"when the point in time is fixed", "echo \"snapshot 'snap-1' of volume 'disk-1' created\" >&2" + goesOn,
			func(w *world) bool { return w.exists("called") && !w.frozen() }},
		{"when the CPI has answered", answered("snap-1") + goesOn, func(w *world) bool { return w.exists("called") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, tt.script, "release_on_stderr: aws")
			if tt.script == "" {
				w.slowRest()
			}
			c := w.begin(w.request("disk-1"))
			w.eventually("it is so far", func() bool { return tt.reached(w) })
			w.must(c.cmd.Process.Kill())
			if a := w.endOf(c); a.stdout != "" {
				t.Errorf("stdout is %q", a.stdout)
			}
			w.signalCPI("rest")
			w.eventually("nothing is held any more", func() bool { return w.status() == "" })
			w.mustThaw()
			w.signalCPI("answer")
			if tt.script != "" {
				w.eventually("the CPI went on", func() bool { return w.exists("went-on") })
			} else if w.exists("request") {
				t.Error("the CPI was called")
			}
		})
	}
}

func TestQuiesceCPIKilledAtAnyInstantLeavesTheVMToTheLease(t *testing.T) {
	t.Parallel()
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "sleep 0.02\n"+answered("snap-1"), "lease: 1s")
			for j := range 2 {
				c := w.begin(w.request("disk-1"))
				time.Sleep(time.Duration(2*i+j) * 4 * time.Millisecond)
				_ = c.cmd.Process.Kill()
				a := w.endOf(c)
				w.eventually("nothing is held any more", func() bool { return w.status() == "" })
				w.mustThaw()
				if a.state.Success() {
					w.mustAnswer(a, "snap-1")
				}
			}
		})
	}
}

// status is what the daemon is doing.
func (w *world) status() string {
	s, err := w.client().Status(w.t.Context())
	w.must(err)
	return s.Work
}

func TestACallTerminatedBeforeItsCPIRunsTakesItsHoldBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, answered("snap-1"), "")
	w.slowRest()
	c := w.begin(w.request("disk-1"))
	w.eventually("the VM is brought to rest", func() bool { return w.exists("bringing") })
	w.must(c.cmd.Process.Signal(syscall.SIGTERM))
	w.eventually("nothing is held any more", func() bool { return w.status() == "" })
	a := w.endOf(c)
	if s := a.state.Sys().(syscall.WaitStatus); !s.Signaled() || s.Signal() != syscall.SIGTERM || a.stdout != "" || w.exists("request") {
		t.Errorf("it ended with %v, stdout %q", a.state, a.stdout)
	}
}

// A worker that is ended by SIGTERM takes its CPI with it, and its hold.
func TestATerminatedCallEndsItsHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "touch $D/called\nexec sleep 1000", "lease: 30s")
	c := w.beginHeld(w.request("disk-1"))
	w.must(c.cmd.Process.Signal(syscall.SIGTERM))
	a := w.endOf(c)
	if s := a.state.Sys().(syscall.WaitStatus); !s.Signaled() || s.Signal() != syscall.SIGTERM || a.stdout != "" {
		t.Errorf("it ended with %v, stdout %q", a.state, a.stdout)
	}
	if w.frozen() {
		t.Error("the disk is frozen")
	}
}

// The log of a director's task lies on its own disk. What the CPI prints there may not
// hold up the end of the freeze.
func TestTheDirectorsOwnDiskIsThawedWhateverTheCPIPrints(t *testing.T) {
	t.Parallel()
	const prints = "yes 'a line of the log' | head -c 1048576 >&2\n"
	w := newWorld(t, prints+answered("snap-1"), "level: stop\nlease: 30s")
	log, err := os.OpenFile(filepath.Join(w.disk.Mount, "cpi.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	w.must(err)
	defer log.Close()
	a := w.endOf(w.beginWith(asWorker(w.command()), ofSelf(w.request("disk-1")), log))
	w.mustAnswer(a, "snap-1")
	w.mustThaw()
	w.mustCatalogue("snap-1", true)
	text, err := os.ReadFile(log.Name())
	w.must(err)
	if n := strings.Count(string(text), "a line of the log\n"); n != 1048576/18 {
		t.Errorf("%d lines", n)
	}
	w.contains("the log's end", string(text[len(text)-200:]), "at rest (freeze)")
	if a.took > 10*time.Second {
		t.Errorf("it took %v", a.took)
	}
}

func TestAPipeThatNobodyReadsHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "yes | head -c 1048576 >&2\n"+answered("snap-1"), "lease: 30s")
	read, write, err := os.Pipe()
	w.must(err)
	defer read.Close()
	c := w.beginWith(asWorker(w.command()), ofSelf(w.request("disk-1")), write)
	w.must(write.Close())
	w.eventually("the snapshot is recorded", func() bool { return len(w.snapshots()) == 1 && w.snapshots()[0].State == "known" })
	w.mustThaw()
	w.mustCatalogue("snap-1", true)
	if n := strings.Count(drain(read), "y\n"); n != 1<<19 {
		t.Errorf("%d lines", n)
	}
	w.mustAnswer(w.endOf(c), "snap-1")
}

func TestAStrangerIsNotServedOnTheSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t, answered("snap-1"), "policy: fail")
	cmd := asWorker(w.command())
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: vcap + 1, Gid: vcap + 1}
	a := w.endOf(w.beginWith(cmd, ofSelf(w.request("disk-1")), nil))
	w.contains("stdout", a.stdout, "Bosh::Clouds::CloudError", "permission denied")
}
