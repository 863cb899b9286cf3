package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce/failpoint"
	"github.com/quiesced/quiesced/quiesce/fscheck"
)

// Scratch is all that has to be known of a disk that was made for a verification, to
// remove it. It is durable before each step.
type Scratch struct {
	Snapshot string // CID of the snapshot
	Boot     string // boot id of the kernel under which its processes ran
	Began    time.Time
	Call     *Call  // the newest of the CPI, which may be under way; nil for none
	Making   bool   // that call makes the disk
	Disk     string // its CID, "" as long as it is not known; it may be attached
	Path     string // where it is attached, "" as long as that is not known
}

// ofThisBoot is what the record tells still: after a reboot no call is under way, and what
// is where the disk was may be another one.
func (s Scratch) ofThisBoot() Scratch {
	if s.Boot == bootID() {
		return s
	}
	s.Boot, s.Path = bootID(), ""
	if s.Call != nil {
		s.Call = &Call{Dir: s.Call.Dir}
	}
	return s
}

// ScratchStore keeps the one that there is across restarts.
type ScratchStore interface {
	Put(Scratch) error
	Get() (Scratch, bool, error)
	Remove() error
}

// errNoDisk says that a CPI was told to make a disk and gave no usable answer.
var errNoDisk = errors.New("the CPI may have made a disk whose CID nobody knows: look for it in the IaaS")

// dir holds what the CPI prints.
func (v *verification) dir() string {
	return filepath.Join(v.agent.Settings.StateDir, "verification")
}

// client is a CPI whose calls are known to the next daemon, which waits for them.
func (v *verification) client() *cpi.Client {
	_ = os.MkdirAll(v.dir(), 0o700) // what is in the way is told by the call
	client := *v.agent.CPI
	client.TempDir, client.Starting = v.dir(), v.starting
	return &client
}

// starting makes a call known before it can act.
func (v *verification) starting(dir string, p cpi.Process) error {
	v.record.Call = &Call{Dir: dir, Process: p}
	if err := v.save(); err != nil && !v.removing {
		return fmt.Errorf("cannot record what is about to be done: %w", err)
	}
	return nil
}

func (v *verification) save() error {
	v.agent.awaitThaw(v.agent.lifetime)
	return v.agent.Scratch.Put(v.record)
}

const (
	// stopTime is how long the daemon's own end waits for a disk to be removed. The next
	// daemon does what is left.
	stopTime = 2 * time.Second

	// firstRetry and lastRetry are when it is tried again to remove a disk.
	firstRetry = time.Second
	lastRetry  = 10 * time.Minute
)

// clear removes all that a verification has made. What cannot be removed is tried again,
// and keeps others from beginning; the error is why it was not removed at once.
func (v *verification) clear(ctx context.Context) error {
	v.removing = true
	err := v.remove(context.WithoutCancel(ctx))
	if err == nil || errors.Is(err, errNoDisk) {
		v.end()
		return err
	}
	v.leave(err)
	if v.agent.lifetime.Err() == nil {
		v.agent.jobs.Go(v.clearLater)
	}
	return err
}

// clearLater tries again until it is done, or the daemon ends.
func (v *verification) clearLater() {
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		select {
		case <-time.After(wait):
		case <-v.agent.lifetime.Done():
			return
		}
		err := v.remove(context.Background())
		if err == nil || errors.Is(err, errNoDisk) {
			v.agent.Log.Info("removed what a verification had left", "snapshot", v.record.Snapshot, "disk", v.record.Disk)
			v.end()
			return
		}
		v.leave(err)
	}
}

func (v *verification) leave(err error) {
	v.agent.Log.Error("cannot remove the disk of a verification; trying again", "snapshot", v.record.Snapshot, "disk", v.record.Disk, "error", err)
	v.agent.mu.Lock()
	defer v.agent.mu.Unlock()
	v.status.Left = err.Error()
}

// remove undoes what the record says, by the record alone.
func (v *verification) remove(ctx context.Context) error {
	v.enter("removing the disk")
	if v.agent.CPI == nil {
		return errors.New("no CPI is configured (cpi.path)")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*v.agent.Settings.Budgets.Snapshot)
	defer cancel()
	stopping := context.AfterFunc(v.agent.lifetime, func() { time.AfterFunc(stopTime, cancel) })
	defer stopping()
	lost := v.settle(ctx)
	if lost != nil && !errors.Is(lost, errNoDisk) {
		return lost
	}
	if v.record.Disk != "" {
		if err := v.removeDisk(ctx); err != nil {
			return err
		}
	}
	if err := v.agent.Scratch.Remove(); err != nil {
		return err
	}
	if err := os.RemoveAll(v.dir()); err != nil {
		v.agent.Log.Warn("cannot remove what the CPI printed", "error", err)
	}
	if lost != nil {
		v.agent.Log.Error("a verification may have left a disk", "snapshot", v.record.Snapshot, "error", lost)
	}
	return lost
}

// settle waits for the CPI's process that is under way, and learns which disk it made.
func (v *verification) settle(ctx context.Context) error {
	if v.record.Call == nil {
		return nil
	}
	call, err := v.agent.CPI.Reattach(v.record.Call.Dir, v.record.Call.Process)
	if err != nil {
		return err
	}
	select {
	case <-call.Done():
	case <-ctx.Done():
		if v.agent.lifetime.Err() == nil {
			call.Kill(killGrace)
		}
		return fmt.Errorf("the CPI takes too long: %w", context.Cause(ctx))
	}
	if !v.record.Making {
		return nil
	}
	return v.learn(ctx, call)
}

// learn reads which disk was made. An error that the CPI reports means that there is none.
func (v *verification) learn(ctx context.Context, call *cpi.Call) error {
	answer, err := call.Wait(ctx)
	if errors.As(err, new(*cpi.Error)) {
		return nil
	}
	if err == nil {
		err = v.made(v.agent.CPI, answer)
	}
	if err != nil && v.record.Disk == "" {
		return fmt.Errorf("%w: %w", errNoDisk, err)
	}
	return nil // a record that cannot be written now keeps nobody from removing it
}

// removeDisk detaches and deletes the disk, as often as it takes: what is not there any
// more is as it should be.
func (v *verification) removeDisk(ctx context.Context) error {
	client, disk := v.client(), v.record.Disk
	if v.record.Path != "" {
		if err := fscheck.Forget(ctx, v.record.Path); err != nil {
			v.agent.Log.Warn("partitions are left", "disk", disk, "error", err)
		}
	}
	err := client.DetachDisk(ctx, v.agent.Settings.VM, disk)
	if err != nil && !isAny(err, cpi.DiskNotAttached, cpi.DiskNotFound) && !cpi.CannotDo(err) {
		return fmt.Errorf("cannot detach disk %q: %w", disk, err)
	}
	failpoint.Hit("scratch-detached")
	v.record.Path = ""
	if err := client.DeleteDisk(ctx, disk); err != nil && !errors.Is(err, cpi.DiskNotFound) {
		return fmt.Errorf("cannot delete disk %q: %w", disk, err)
	}
	failpoint.Hit("scratch-deleted")
	return nil
}

func isAny(err error, types ...cpi.ErrorType) bool {
	for _, t := range types {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// recoverScratch removes what a verification has left that its daemon's end cut off. Scripts
// of that daemon are ended first: they keep the disk busy.
func (a *Agent) recoverScratch() {
	record, ok, err := a.Scratch.Get()
	if err != nil {
		a.Log.Error("cannot tell whether a verification has left a disk", "error", err)
		return
	}
	v := &verification{agent: a, record: record.ofThisBoot(), since: record.Began}
	if !ok {
		_ = os.RemoveAll(v.dir()) // of a call that was not recorded, and so not made
		return
	}
	a.Log.Warn("removing what a verification has left that was cut off", "snapshot", record.Snapshot, "disk", record.Disk)
	a.endLeft(func(text string) { a.Log.Warn(text, "snapshot", record.Snapshot) })
	if err := v.take(); err != nil { // nobody else has begun yet
		a.Log.Error("cannot remove what a verification has left", "error", err)
		return
	}
	a.jobs.Go(func() { _ = v.clear(a.lifetime) })
}
