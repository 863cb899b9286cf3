package agent

import (
	"time"
)

// Phase is what a run is doing, and the name under which its time is reported.
type Phase string

// The phases of a run, in order. Waiting and planning are not reported.
const (
	PhaseWaiting      Phase = "waiting"       // for the work that holds the VM
	PhasePrepare      Phase = "prepare"       // starting the CPI's processes and the guard
	PhasePreStop      Phase = "pre_stop"      // the jobs' pre-stop scripts
	PhaseDrain        Phase = "drain"         // the jobs' drain scripts
	PhaseStop         Phase = "stop"          // stopping the services
	PhasePostStop     Phase = "post_stop"     // the jobs' post-stop scripts
	PhaseLock         Phase = "lock"          // the jobs' lock scripts
	PhasePreSnapshot  Phase = "pre_snapshot"  // the jobs' pre-snapshot scripts
	PhasePreSync      Phase = "pre_sync"      // writing out, while the application goes on
	PhaseFreeze       Phase = "freeze"        // from the first FIFREEZE to the last one's return
	PhaseFrozen       Phase = "frozen"        // from the first FIFREEZE to the last thaw: the application's pause
	PhaseSnapshot     Phase = "snapshot"      // from the CPI's last byte of input to its answer
	PhasePostSnapshot Phase = "post_snapshot" // the jobs' post-snapshot scripts; part of resume
	PhaseUnlock       Phase = "unlock"        // the jobs' unlock scripts; part of resume
	PhasePreStart     Phase = "pre_start"     // the jobs' pre-start scripts; part of resume
	PhaseStart        Phase = "start"         // until the services run; part of resume
	PhasePostStart    Phase = "post_start"    // the jobs' post-start scripts; part of resume
	PhaseLocked       Phase = "locked"        // from the first lock script to the last unlock
	PhaseJobsDown     Phase = "jobs_down"     // from the services' being told to stop until all run again
	PhaseLinger       Phase = "linger"        // jobs at rest between a director's calls for one instance
	PhaseResume       Phase = "resume"        // undoing
	PhaseTotal        Phase = "total"         // the whole run
	PhaseRecord       Phase = "record"        // making CIDs and report durable; not reported

	// Those of a restore alone.
	PhaseMakeDisk  Phase = "make_disk"  // the CPI makes a disk from the snapshot
	PhaseCheckDisk Phase = "check_disk" // it is attached, and its filesystem checked
	PhaseUnmount   Phase = "unmount"    // the persistent disk is unmounted
	PhaseSwap      Phase = "swap"       // the two disks are compared and exchanged
	PhaseMount     Phase = "mount"      // the disk is attached and mounted; part of resume
)

// ReportedPhases lists the phases whose times a report may carry.
func ReportedPhases() []Phase {
	return []Phase{
		PhasePrepare, PhasePreStop, PhaseDrain, PhaseStop, PhasePostStop, PhaseLock, PhasePreSnapshot,
		PhasePreSync, PhaseFreeze, PhaseFrozen, PhaseSnapshot, PhaseLocked, PhaseJobsDown, PhaseLinger, PhaseResume, PhaseTotal,
	}
}

// RestorePhases lists the phases whose times the report of a restore may carry.
func RestorePhases() []Phase {
	return []Phase{
		PhaseMakeDisk, PhaseCheckDisk, PhasePreStop, PhaseDrain, PhaseStop, PhasePostStop, PhaseUnmount, PhaseSwap,
		PhaseMount, PhaseJobsDown, PhaseResume, PhaseTotal,
	}
}

// Outcome is how a run ended.
type Outcome string

// The outcomes.
const (
	OutcomeSucceeded  Outcome = "succeeded"
	OutcomeFailed     Outcome = "failed"      // and everything was set going again
	OutcomeNotResumed Outcome = "not_resumed" // failed, and something is still frozen, down or out of its place
	OutcomeCancelled  Outcome = "cancelled"   // and everything was set going again
	OutcomeRefused    Outcome = "refused"     // nothing was touched
	OutcomeDisabled   Outcome = "disabled"    // enable_snapshots is false; nothing was touched
)

// Report is what a run says of itself when it has ended.
type Report struct {
	ID        string
	Trigger   Trigger
	By        string
	Outcome   Outcome
	Asked     Level
	Reached   Level
	Clean     bool
	Reason    string // why not clean, or why less than asked was reached
	Disks     []DiskResult
	Thaws     []Thaw
	Notes     []string // what an operator should know beside the outcome
	Phases    map[Phase]time.Duration
	Started   time.Time
	Ended     time.Time
	Error     string    // with its cause; "" when succeeded
	Yielded   bool      // services are left to the director as they are, some of them stopped
	Recovered bool      // another daemon than the one that began it ended it
	Unbroken  *bool     // of a hold: the instance was at rest from the lease's start to its end; else nil
	Restore   *Restored // of a restore; else nil
}

// DiskResult is what became of one disk.
type DiskResult struct {
	CID         string
	SnapshotCID string // "" if there is none
	Clean       bool
	Unresolved  bool // the CPI may have made a snapshot whose CID nobody knows
	Took        time.Duration
	Error       string
}

// Thaw is what became of one frozen filesystem.
type Thaw struct {
	Mount     string
	Cause     string // asked, deadline, daemon died, …
	State     string // thawed; unconfirmed where no canary saw it; lost to somebody else; or what is stuck
	FrozenFor time.Duration
}
