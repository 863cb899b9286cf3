package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce"
	"github.com/quiesced/quiesced/quiesce/failpoint"
	"github.com/quiesced/quiesced/quiesce/fscheck"
)

// verification is one look at a snapshot. It belongs to one goroutine.
type verification struct {
	agent    *Agent
	snapshot Snapshot
	since    time.Time
	record   Scratch
	removing bool   // a record that cannot be written ends nothing any more
	free     func() // gives the snapshot back

	status VerificationStatus      // guarded by agent.mu
	cancel context.CancelCauseFunc // guarded by agent.mu; nil before it began
}

// take makes this the agent's one verification.
func (v *verification) take() error {
	a := v.agent
	free, err := a.share(v.record.Snapshot, "verify "+v.record.Snapshot)
	if err != nil {
		return err
	}
	v.free = free
	v.status = VerificationStatus{Snapshot: v.record.Snapshot, Disk: v.record.Disk, Since: v.since}
	if err := a.setVerifying(v); err != nil {
		free()
		return err
	}
	return nil
}

func (a *Agent) setVerifying(v *verification) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if other := a.verifying; other != nil {
		return &BusyError{Work: fmt.Sprintf("verify %s (%s)", other.status.Snapshot, other.status.Step), Since: other.status.Since}
	}
	a.verifying = v
	return nil
}

// end lets another verification begin.
func (v *verification) end() {
	v.agent.mu.Lock()
	v.agent.verifying = nil
	v.agent.mu.Unlock()
	v.free()
}

func (v *verification) setCancel(cancel context.CancelCauseFunc) {
	v.agent.mu.Lock()
	defer v.agent.mu.Unlock()
	v.cancel = cancel
}

// endVerification has the verification under way, if there is one, end and remove what it
// made.
func (a *Agent) endVerification(why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.verifying != nil && a.verifying.cancel != nil {
		a.verifying.cancel(why)
	}
}

func (v *verification) enter(step string) {
	v.agent.mu.Lock()
	defer v.agent.mu.Unlock()
	v.status.Step, v.status.Disk = step, v.record.Disk
}

// look makes the disk and looks at what is on it.
func (v *verification) look(ctx context.Context) (Verification, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, v.agent.Settings.Budgets.Verify, errOverVerify)
	defer cancel()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"making a disk", v.make},
		{"attaching the disk", v.attach},
	} {
		v.enter(step.name)
		if err := step.do(ctx); err != nil {
			return Verification{}, firstCause(ctx, err)
		}
	}
	v.enter("checking")
	found, err := v.check(ctx)
	found.Time = time.Now()
	return found, firstCause(ctx, err)
}

// make has the CPI make the disk. If this ends first the CPI goes on, and clear waits for
// its answer: a CID is never lost.
func (v *verification) make(ctx context.Context) error {
	mib, err := v.size()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(v.dir()); err != nil {
		return fmt.Errorf("cannot remove what an earlier verification left: %w", err)
	}
	client, dir := v.client(), filepath.Join(v.dir(), "create_disk")
	properties := map[string]any{cpi.PropertySnapshot: v.snapshot.CID}
	call, err := client.PrepareCreateDisk(dir, mib, properties, v.agent.Settings.VM)
	if err != nil {
		return err
	}
	failpoint.Hit("scratch-unrecorded")
	v.record.Making = true
	if err := errors.Join(v.starting(dir, call.Process()), ctx.Err()); err != nil {
		call.Abort()
		v.record.Call, v.record.Making = nil, false // nothing was done
		return err
	}
	failpoint.Hit("scratch-recorded")
	_ = call.Send() // one that ended without reading may have answered
	answer, err := call.Wait(ctx)
	if cpi.CannotDo(err) {
		return refuse("", "the CPI cannot make disks: %w", err)
	}
	if err != nil {
		return err
	}
	failpoint.Hit("scratch-made")
	return v.made(client, answer)
}

// made makes durable which disk was made, and that it is about to be attached.
func (v *verification) made(client *cpi.Client, answer cpi.Answer) error {
	disk, err := client.DiskCID(answer.Result)
	if err != nil {
		return err
	}
	if err := v.agent.refuseKnown(disk); err != nil {
		v.record.Making = false // it is none of ours to delete
		return errors.Join(err, v.save())
	}
	v.record.Disk, v.record.Making = disk, false
	return v.save()
}

// refuseKnown refuses a CID that was there before: the disk would be deleted in the end.
func (a *Agent) refuseKnown(disk string) error {
	known := map[string]bool{}
	for _, s := range a.catalogue.list() {
		known[s.DiskCID] = true
	}
	attached, err := a.Settings.attached()
	for _, d := range attached {
		known[d.CID] = true
	}
	if err == nil && known[disk] {
		err = fmt.Errorf("the CPI made a disk and answered %q, which is the CID of a disk that was there before", disk)
	}
	return err
}

// size is what the disk needs, in MiB: what the snapshotted one had, or has now.
func (v *verification) size() (int64, error) {
	size := v.snapshot.DiskSize
	if size == 0 {
		size = v.sizeNow()
	}
	if size == 0 {
		return 0, refuse("", "it is not known how large the disk was, and disk %q is not attached", v.snapshot.DiskCID)
	}
	const mib = 1 << 20
	return (size + mib - 1) / mib, nil
}

func (v *verification) sizeNow() int64 {
	disks, err := v.agent.Settings.selected([]string{v.snapshot.DiskCID})
	if err != nil {
		return 0
	}
	return v.agent.filesystems(disks).Sizes[v.snapshot.DiskCID]
}

// deviceTime is how long a disk may take to appear once it is attached.
const deviceTime = time.Minute

// attach has the CPI attach the disk, and waits for its device. It must not be one that was there
// before, nor a directory that somebody uses.
func (v *verification) attach(ctx context.Context) error {
	before, err := v.agent.System.Devices()
	if err != nil {
		return err
	}
	path, err := v.client().AttachDisk(ctx, v.agent.Settings.VM, v.record.Disk)
	if err != nil {
		return v.explain(err)
	}
	failpoint.Hit("scratch-attached")
	if err := v.agent.awaitNew(ctx, path, before); err != nil {
		return err
	}
	v.record.Path = path // only now: what is done to it is not done to another's
	return v.save()
}

// explain adds to what a CPI says of attach_disk what may be the reason.
func (v *verification) explain(err error) error {
	if v.agent.Settings.VM == "" {
		return fmt.Errorf("%w (instance.vm_cid is not configured)", err)
	}
	return err
}

// awaitNew waits for the device of a disk that was attached, and refuses what was there
// before.
func (a *Agent) awaitNew(ctx context.Context, path string, before map[string]string) error {
	if err := appear(ctx, path); err != nil {
		return fmt.Errorf("the disk does not appear at %q, where the CPI attached it: %w", path, err)
	}
	return a.refuseUsed(path, before)
}

func appear(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, deviceTime)
	defer cancel()
	for {
		_, err := os.Stat(path)
		if err == nil || !errors.Is(err, os.ErrNotExist) {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// refuseUsed refuses what cannot be the new disk: it would be written to.
func (a *Agent) refuseUsed(path string, before map[string]string) error {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	now, err := a.System.Devices()
	if err != nil {
		return err
	}
	name := filepath.Base(target)
	if was, there := before[name]; there && was == now[name] && filepath.Dir(target) == "/dev" {
		return fmt.Errorf("the CPI attached the disk at %q, where another was before", path)
	}
	if at, mounted := a.mountAt(target); mounted {
		return fmt.Errorf("the CPI attached the disk at %q, which is in use at %q", path, at)
	}
	return nil
}

// mountAt is the mount of one of the instance's disks that a directory is, or has within it.
func (a *Agent) mountAt(dir string) (string, bool) {
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() {
		return "", false
	}
	for _, at := range a.mounts() {
		if mount, err := os.Stat(at); err == nil && os.SameFile(info, mount) || within(at, dir) {
			return at, true
		}
	}
	return "", false
}

// within says that a path is a directory or lies below it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// mounts are those of the instance's disks: the configured ones, and those that are there
// beside them, as of a disk that is known by its device.
func (a *Agent) mounts() []string {
	disks, err := a.Settings.attached()
	if err != nil {
		return nil
	}
	var all []string
	for _, d := range disks {
		all = append(all, d.Mounts...)
	}
	for _, f := range a.filesystems(disks).Filesystems {
		if !f.Root {
			all = append(all, f.Mounts...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// filesystems are what is on disks, nothing where that cannot be told.
func (a *Agent) filesystems(disks []quiesce.Disk) *quiesce.Contents {
	survey, err := a.System.Survey()
	if err != nil {
		return &quiesce.Contents{}
	}
	on, err := survey.Filesystems(disks)
	if err != nil {
		return &quiesce.Contents{}
	}
	return on
}

// check checks the filesystem, and has the jobs look at it where it is whole.
func (v *verification) check(ctx context.Context) (Verification, error) {
	r, err := fscheck.Check(ctx, v.record.Path)
	if errors.Is(err, fscheck.ErrEmpty) {
		err = fmt.Errorf("%w: this CPI may not make disks from snapshots", err)
	}
	found := Verification{OK: r.OK, How: r.Tool, Result: "the filesystem is whole"}
	if err != nil {
		return found, err
	}
	failpoint.Hit("scratch-checked")
	if !r.OK {
		found.Result = "the filesystem is damaged: " + bounded(r.Output)
		return found, nil
	}
	return v.askJobs(ctx, r, found)
}

// bounded is a result that may be kept and shown: the end of a text.
func bounded(text string) string {
	const most = 2000
	if over := len(text) - most; over > 0 {
		text = "…" + strings.ToValidUTF8(text[over:], "")
	}
	return text
}
