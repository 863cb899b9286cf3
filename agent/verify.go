package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quiesced/quiesced/quiesce/failpoint"
)

// Verified is what came of a verification.
type Verified struct {
	CID string // of the snapshot
	Verification
	Left string // why the disk that was made for it is not removed yet, "" where it is
}

// errOverVerify is why a verification was ended that took too long.
var errOverVerify = errors.New("it took longer than its budget (budgets.verify)")

// Verify makes a disk from a snapshot, checks the filesystem on it, has the jobs'
// verify scripts look at it, removes the disk, and records what was found. "" is the
// newest clean snapshot, or where none is clean the newest. It does not hold the VM: runs
// go on beside it.
//
// A snapshot that is not good is no error. The error says why nobody can tell, and
// nothing is recorded then. Errors: *UnknownSnapshotError, *RefusedError,
// *BusyError, the CPI's, and the cause of ctx.
func (a *Agent) Verify(ctx context.Context, cid string) (Verified, error) {
	v, err := a.beginVerification(cid)
	if err != nil {
		return Verified{CID: cid}, err
	}
	defer a.jobs.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(a.lifetime, func() { cancel(ErrStopping) })()
	v.setCancel(cancel)
	if _, yielded := a.yielded(); yielded { // since it began
		cancel(ErrYielded)
	}
	found, err := v.look(ctx)
	if err == nil {
		err = v.conclude(ctx, found)
	}
	end := Verified{CID: v.snapshot.CID, Verification: found}
	left := v.clear(ctx)
	if left != nil {
		end.Left = left.Error()
	}
	switch {
	case err != nil && left != nil:
		err = fmt.Errorf("cannot verify snapshot %q: %w; and the disk that was made for it is left: %w", end.CID, err, left)
	case err != nil:
		err = fmt.Errorf("cannot verify snapshot %q: %w", end.CID, err)
	}
	a.verified(end, err)
	return end, err
}

// beginVerification refuses what cannot be verified, and a second one beside the first.
func (a *Agent) beginVerification(cid string) (*verification, error) {
	a.admit.Lock()
	defer a.admit.Unlock()
	if err := a.refuseVerification(); err != nil {
		return nil, err
	}
	s, err := a.toVerify(cid)
	if err == nil {
		err = a.refuseUnended(s.RunID)
	}
	if err != nil {
		return nil, err
	}
	v := &verification{agent: a, snapshot: s, since: time.Now()}
	v.record = Scratch{Snapshot: s.CID, Boot: bootID(), Began: v.since}
	if err := v.take(); err != nil {
		return nil, err
	}
	a.jobs.Add(1)
	return v, nil
}

func (a *Agent) refuseVerification() error {
	if a.lifetime.Err() != nil {
		return &RefusedError{Err: ErrStopping}
	}
	if a.CPI == nil {
		return refuse("", "no CPI is configured (cpi.path)")
	}
	if err := a.CPI.Check(); err != nil {
		return &RefusedError{Err: err}
	}
	if _, yielded := a.yielded(); yielded {
		return refuse("", "the director has the jobs to itself (quiesced yield), and may recreate the VM")
	}
	return nil
}

// toVerify is the snapshot with a CID, or which is chosen for "".
func (a *Agent) toVerify(cid string) (Snapshot, error) {
	if cid == "" {
		return a.newest()
	}
	s, err := a.catalogue.withCID(cid)
	if err == nil && s.State != SnapshotKnown {
		err = refuse("", "snapshot %q is %s", cid, s.State)
	}
	return s, err
}

// newest is the newest clean snapshot, or where none is clean the newest.
func (a *Agent) newest() (Snapshot, error) {
	all := slices.DeleteFunc(a.catalogue.list(), func(s Snapshot) bool { return s.State != SnapshotKnown })
	for _, s := range slices.Backward(all) {
		if s.Clean {
			return s, nil
		}
	}
	if len(all) == 0 {
		return Snapshot{}, refuse("", "there is no snapshot")
	}
	return all[len(all)-1], nil
}

// conclude makes durable what was found.
func (v *verification) conclude(ctx context.Context, found Verification) error {
	v.enter("recording")
	v.agent.awaitThaw(ctx)
	defer failpoint.Hit("scratch-concluded")
	return v.agent.SetVerified(v.snapshot.CID, found)
}

// verified tells everybody what came of a verification.
func (a *Agent) verified(v Verified, err error) {
	a.Observer.VerificationEnded(v, err)
	switch {
	case err != nil:
		a.Log.Error("a snapshot could not be verified", "snapshot", v.CID, "error", err)
	case v.OK:
		a.Log.Info("snapshot verified", "snapshot", v.CID, "how", v.How)
	default:
		a.Log.Error("a snapshot is not good", "snapshot", v.CID, "how", v.How, "result", v.Result)
	}
}

// awaitThaw waits while something is frozen: nothing is written to any disk then. Whoever
// waits is no part of the run.
func (a *Agent) awaitThaw(ctx context.Context) {
	for {
		a.mu.Lock()
		open := !a.turned.IsZero()
		a.mu.Unlock()
		if !open {
			return
		}
		select {
		case <-time.After(heartbeat):
		case <-ctx.Done():
			return
		}
	}
}

// VerificationStatus is what a status tells of a verification that is under way, or whose
// disk could not be removed yet.
type VerificationStatus struct {
	Snapshot string
	Step     string
	Since    time.Time
	Disk     string // CID of the disk that was made for it, "" for none
	Left     string // why that could not be removed yet, "" where that was not tried
}

// Verification is the one under way, nil for none.
func (a *Agent) Verification() *VerificationStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.verifying == nil {
		return nil
	}
	s := a.verifying.status
	return &s
}
