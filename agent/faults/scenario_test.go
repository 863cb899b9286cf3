package faults_test

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// victims are the processes that a fault hits.
type victims int

const (
	daemon victims = 1 << iota
	guardian
	cpi
)

func (v victims) String() string {
	var names []string
	for i, name := range []string{"daemon", "guard", "CPI"} {
		if v&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, " and ")
}

// fault is what is done to them.
type fault string

const (
	killed  fault = "killed"
	stopped fault = "stopped for a while"
	ended   fault = "terminated"
	starved fault = "starved"

	// These are for the daemon alone, and kill it.
	lost      fault = "killed and the state directory lost"
	forgotten fault = "killed and all but the services' mark lost"
)

var everyFault = []fault{killed, stopped, ended, starved}

// stopTime is how long a stopped process stays so. It is longer than the guard
// does without a heartbeat.
const stopTime = 1300 * time.Millisecond

// step is one fault at one moment of a run.
type step struct {
	at    string        // the failpoint; empty for a moment
	after time.Duration // the moment, from the step before
	fault fault
	who   victims
	sure  bool // it must find its point, even if it is not the first step
}

func (s step) String() string {
	at := "at " + s.at
	if s.at == "" {
		at = "after " + s.after.String()
	}
	return fmt.Sprintf("%s %s %s", s.who, s.fault, at)
}

// runID is the run that the faults hit.
const runID = "cut"

// inflict waits for the step's moment, no longer than that, and does what it says
// to those victims that are there.
func (v *vm) inflict(s step, limit time.Duration) error {
	var err error
	if s.at == "" {
		time.Sleep(s.after)
	} else {
		err = v.awaitHit(s.at, limit)
	}
	found, missing := v.find(s.who)
	v.hit(found, s)
	v.letGo()
	if s.fault == stopped {
		time.Sleep(stopTime)
		signalAll(found, unix.SIGCONT)
	}
	for _, p := range found {
		_ = p.Release()
	}
	return errors.Join(err, missing)
}

func (v *vm) arm(point string) error {
	return os.WriteFile(filepath.Join(v.points, point), nil, 0o600)
}

// awaitHit waits until a process is held at a point.
func (v *vm) awaitHit(point string, limit time.Duration) error {
	return within(limit, "somebody comes to "+point, func() bool {
		pid, _ := os.ReadFile(filepath.Join(v.points, point+".hit"))
		return len(pid) > 0
	})
}

// letGo lets everybody go on who is held, and disarms the points.
func (v *vm) letGo() {
	points, _ := os.ReadDir(v.points)
	for _, e := range points {
		if !strings.HasPrefix(e.Name(), "oom.") {
			_ = os.Remove(filepath.Join(v.points, e.Name()))
		}
	}
}

// victim is one of them.
type victim struct {
	is victims
	*os.Process
}

// find opens the victims, which then are the same processes whatever happens.
func (v *vm) find(who victims) ([]victim, error) {
	var all []victim
	var errs []error
	for _, one := range []struct {
		is  victims
		pid func() (int, error)
	}{
		{daemon, func() (int, error) { return v.daemon.Process.Pid, nil }},
		{guardian, func() (int, error) { return v.guardPID(runID) }},
		{cpi, v.cpiPID},
	} {
		if who&one.is == 0 {
			continue
		}
		pid, err := one.pid()
		if err != nil || pid == 0 {
			errs = append(errs, fmt.Errorf("there is no %s: %w", one.is, cmp.Or(err, error(unix.ESRCH))))
			continue
		}
		p, err := os.FindProcess(pid)
		if err == nil {
			err = p.Signal(syscall.Signal(0))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("the %s has ended: %w", one.is, err))
			continue
		}
		all = append(all, victim{one.is, p})
	}
	return all, errors.Join(errs...)
}

// hit does to the processes what the step says. Two are stopped first, so that
// neither sees the other's end.
func (v *vm) hit(found []victim, s step) {
	switch s.fault {
	case killed, lost, forgotten:
		if len(found) > 1 {
			signalAll(found, unix.SIGSTOP)
		}
		signalAll(found, unix.SIGKILL)
	case stopped:
		signalAll(found, unix.SIGSTOP)
	case ended:
		signalAll(found, unix.SIGTERM)
	case starved:
		for _, p := range found {
			v.starve(p)
		}
	}
}

func signalAll(found []victim, s syscall.Signal) {
	for _, p := range found {
		_ = p.Signal(s)
	}
}

// starve lets a Go program have no more memory, and kills the group of a CPI.
func (v *vm) starve(p victim) {
	if p.is == cpi {
		_ = unix.Kill(-p.Pid, unix.SIGKILL)
		return
	}
	none := &unix.Rlimit{Cur: 1, Max: 1}
	_ = unix.Prlimit(p.Pid, unix.RLIMIT_AS, none, nil)
	_ = os.WriteFile(filepath.Join(v.points, "oom."+strconv.Itoa(p.Pid)), nil, 0o600)
}

// mortal says that the daemon does not outlive the step.
func (s step) mortal() bool { return s.who&daemon != 0 && s.fault != stopped }

// play has a run hit by the steps, one after the other, and starts the daemon
// again where it ended, at once: later steps hit the recovery. Only the first step
// must find its point and its victims, if it names a point. held are points that
// are armed to keep a process there until then.
func (v *vm) play(steps []step, held ...string) error {
	for _, point := range held {
		if err := v.arm(point); err != nil {
			return err
		}
	}
	if err := v.armFor(steps, 0); err != nil {
		return err
	}
	asked := v.begin(runID)
	limit := patience
	for i, s := range steps {
		if s.sure {
			limit = patience
		}
		if err := v.inflict(s, limit); err != nil && (i == 0 || s.sure) && s.at != "" {
			return err
		}
		if s.mortal() {
			if err := v.awaitEnd(s.fault == starved); err != nil {
				return err
			}
		}
		if err := v.lose(s.fault); err != nil {
			return err
		}
		if err := errors.Join(v.armFor(steps, i+1), v.restart()); err != nil {
			return err
		}
		limit = soon
	}
	if err := <-asked; err != nil && v.bed.kind.holds {
		return err
	}
	return errors.Join(v.restart(), v.answers())
}

// lose removes what a dead daemon had recorded, as far as the fault goes.
func (v *vm) lose(f fault) error {
	if f != lost && f != forgotten {
		return nil
	}
	v.lost = true
	err := os.RemoveAll(filepath.Join(v.dir, "state"))
	if f == forgotten {
		err = errors.Join(err, os.Remove(filepath.Join(v.dir, "run", "jobs-held.json")))
	}
	return err
}

// armFor arms the point of a step, if there is one.
func (v *vm) armFor(steps []step, i int) error {
	if i >= len(steps) || steps[i].at == "" {
		return nil
	}
	return v.arm(steps[i].at)
}

// awaitEnd waits for the daemon's end. One that asks for no more memory, because
// the run is over, is killed in the end.
func (v *vm) awaitEnd(starving bool) error {
	limit := patience
	if starving {
		limit = soon
	}
	select {
	case <-v.ended:
		return nil
	case <-time.After(limit):
	}
	if !starving {
		return errors.New("the daemon does not end")
	}
	_ = v.daemon.Process.Kill()
	<-v.ended
	return nil
}

// restart starts the daemon again if it has ended.
func (v *vm) restart() error {
	select {
	case <-v.ended:
		return v.start()
	default:
		return nil
	}
}
