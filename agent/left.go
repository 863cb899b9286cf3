package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// storeHeld keeps what is held of the jobs beside the socket, or forgets it when it
// is nothing.
func (a *Agent) storeHeld(h Held) error {
	if h.Empty() {
		return a.Held.Remove()
	}
	h.Boot = bootID()
	return a.Held.Put(h)
}

// leaveHeld remembers what could not be set going, for Run to try again.
func (a *Agent) leaveHeld(h Held) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left = &h
}

// Left is what of the jobs could not be set going yet, nil for nothing.
func (a *Agent) Left() *Held {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.left
}

// NotGoing names what of the jobs could not be set going yet.
func (a *Agent) NotGoing() []string {
	h := a.Left()
	if h == nil {
		return nil
	}
	var all []string
	for _, job := range h.Hooked {
		all = append(all, "post-snapshot of "+cmp.Or(job, "processes.hooks"))
	}
	for _, layer := range h.Locked {
		for _, job := range layer {
			all = append(all, "job "+job+" is locked")
		}
	}
	for _, name := range h.names() {
		all = append(all, "service "+name)
	}
	if h.Disk != nil {
		for _, point := range h.Disk.places() {
			all = append(all, fmt.Sprintf("disk %s is not mounted at %s", h.Disk.Disk, point))
		}
	}
	if h.processes() && len(h.Services) == 0 {
		all = append(all, "post-start scripts")
	}
	return all
}

// refuseHeld refuses a request that would do something to jobs, be it a hook alone,
// while some are still held from before: what is down now is not how they are to be
// after, and what is held is kept of one run. While a disk is not in its place there is
// nothing to do for any.
func (a *Agent) refuseHeld(touches bool) error {
	left := a.Left()
	if left == nil || !touches && left.Disk == nil {
		return nil
	}
	return refuse("", "jobs of run %q were not set going again yet", left.Run)
}

// heldEvery is how often it is tried again to set jobs going.
const heldEvery = time.Minute

// retryLimit bounds each step of such a try: others wait for the VM meanwhile, and
// what takes longer is found running by the next.
const retryLimit = 30 * time.Second

// retryHeldOn tries again, until ctx ends, to set jobs going that are held from
// before.
func (a *Agent) retryHeldOn(ctx context.Context) {
	next := time.NewTimer(heldEvery)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		case <-a.again:
		}
		next.Reset(heldEvery)
		if !a.retryHeld() {
			next.Reset(lookAgain)
		}
	}
}

// retryHeld holds the VM meanwhile. It returns false where other work has that.
func (a *Agent) retryHeld() bool {
	left := a.Left()
	if left == nil || len(a.Stuck()) > 0 {
		return true
	}
	run := newRun(a.lifetime, Request{ID: left.Run, Trigger: left.Trigger, Level: left.Level})
	if h := a.holderRun(); h != nil && h.ID() == left.Run && isClosed(h.Resumed()) {
		run = h // it waits for nothing but its CPI
	} else {
		if a.acquire("setting jobs of run "+left.Run+" going", run) != nil {
			return false
		}
		defer a.release()
	}
	run.setGoing()
	defer run.notGoing()
	defer run.setResumed(nil) // whoever yields waits for that
	if err := a.resumeHeld(run, *left); err != nil {
		a.Log.Error("cannot set jobs going", "run", left.Run, "error", err)
	}
	return true
}

// resumeHeld undoes what an ended run held. The run's report stays as it is, and says how
// the run ended, but for where its disk is then.
func (a *Agent) resumeHeld(run *Run, h Held) error {
	g := &going{agent: a, held: h, run: run, save: a.updateHeld, limit: retryLimit}
	if h.Disk != nil { // what does not run in time is taken for a disk that is no good
		g.limit = 0
	}
	g.note = func(text string) { a.Log.Warn(text, "run", h.Run) }
	failed, notResumed := g.undo(a.lifetime)
	if h.Disk != nil && g.held.Disk == nil {
		a.discard(h.Run)
	}
	a.mu.Lock()
	a.left = &g.held
	if g.held.Empty() {
		a.left = nil
	}
	a.mu.Unlock()
	return errors.Join(failed, notResumed)
}

// updateHeld records what is left of what an ended run held.
func (a *Agent) updateHeld(h Held) {
	a.edit.Lock()
	defer a.edit.Unlock()
	err := a.storeHeld(h)
	if r, ok, getErr := a.recordOf(h.Run); getErr != nil {
		err = errors.Join(err, getErr)
	} else if ok && r.Report != nil { // else the run itself records it, in the end
		r.setHeld(h)
		err = errors.Join(err, a.writeLeft(r))
	}
	if err != nil {
		a.Log.Error("cannot record what is held of the jobs", "run", h.Run, "error", err)
	}
}

// writeLeft records what is left of what an ended run held. A disk that is no longer held
// is settled, which the report did not know of. It needs edit held.
func (a *Agent) writeLeft(r Record) error {
	late := r.Report.Restore != nil && r.Report.Restore.Side == "" && r.Restore != nil && r.Restore.Side != ""
	if !late || r.Held != nil && r.Held.Disk != nil {
		return a.write(Change{Records: []Record{r}})
	}
	r = r.diskSettled()
	a.writeRestore(r)
	a.mu.Lock()
	defer a.mu.Unlock()
	if run := a.runs[r.Request.ID]; run != nil {
		run.amend(*r.Report)
	}
	return nil
}

// leftOf is what a run has left of the jobs, nil for nothing.
func (a *Agent) leftOf(id string) *Held {
	if h := a.Left(); h != nil && h.Run == id {
		return h
	}
	return nil
}

// heldBefore is what an earlier daemon held of the jobs, nil for nothing, by what is
// kept beside the socket, or else, after a reboot, by the records, or by the services'
// mark where all that is lost. One that cannot be read keeps nobody from the next. A file
// that outlived a reboot lies on a disk, and may be older than the records: it is not
// written through.
func (a *Agent) heldBefore(records []Record) *Held {
	h, ok, err := a.Held.Get()
	if err != nil {
		a.Log.Error("cannot tell by the file what is held of the jobs", "error", err)
	}
	if ok && h.Boot == bootID() {
		return &h
	}
	for _, r := range slices.Backward(records) {
		if r.Held != nil {
			return r.Held
		}
	}
	mark, err := a.mark()
	if err != nil {
		a.Log.Error("cannot tell by the mark what is held of the jobs", "error", err)
	}
	if mark.Owner != jobs.Ours {
		return nil
	}
	return a.heldByMark(mark)
}

// heldByMark is what a mark alone tells of. What still runs was drained, for all we
// know.
func (a *Agent) heldByMark(mark jobs.Mark) *Held {
	h := Held{Run: mark.Run, Level: LevelStop, Trigger: TriggerManual, Stopped: true}
	now, err := a.Supervisor.Services(a.lifetime)
	if err != nil {
		a.Log.Warn("services that still run may have been drained, and are not started anew", "run", mark.Run, "error", err)
	}
	for _, name := range mark.Services {
		s, _ := serviceState(now, name)
		h.Services = append(h.Services, HeldService{Name: name, Processes: s.Processes})
	}
	return &h
}
