package wire

// Lease is the answer to quiesce and renew: the instance is at rest.
type Lease struct {
	ID      string  `json:"id"`               // of the hold
	Level   string  `json:"level_reached"`    // so far
	Reason  string  `json:"reason,omitempty"` // why it is less than was asked for
	Seconds float64 `json:"lease_seconds"`    // until it ends by itself
	Frozen  float64 `json:"frozen_seconds"`   // until the freeze ends by itself, 0 where nothing is frozen
}

// HoldEnd is the second argument of resume. Without a snapshot and without an error
// it says that the point in time is fixed: what is at rest is set going, and the
// hold goes on, with its lease, until the outcome is told.
type HoldEnd struct {
	Snapshots map[string]string `json:"snapshots,omitempty"` // CIDs of snapshots by those of disks
	Error     string            `json:"error,omitempty"`     // why there is no snapshot
}

// ParseHoldEnd reads one document and nothing after it. The error names the field
// that is wrong.
func ParseHoldEnd(doc []byte) (HoldEnd, error) { return parse[HoldEnd](doc) }
