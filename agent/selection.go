package agent

import (
	"cmp"
	"slices"
	"time"
)

// SortKey is by what snapshots are sorted.
type SortKey string

// The keys. What is equal by one is in the order of creation.
const (
	SortCreated  SortKey = "created"
	SortDisk     SortKey = "disk"
	SortLevel    SortKey = "level" // rising
	SortSize     SortKey = "size"  // of the snapshot, or else of its disk; unknown ones first
	SortTrigger  SortKey = "trigger"
	SortVerified SortKey = "verified" // when that was; what never was first
)

// SortKeys lists every key.
func SortKeys() []SortKey {
	return []SortKey{SortCreated, SortDisk, SortLevel, SortSize, SortTrigger, SortVerified}
}

// Selection says which snapshots are meant, and in which order. Its zero value means all,
// the oldest first.
type Selection struct {
	CIDs     []string // those alone, nil for any
	DiskCID  string
	Trigger  Trigger
	Level    Level // reached
	State    SnapshotState
	Clean    *bool
	Verified *bool         // found good by the newest verification
	Since    time.Time     // created then or later
	Until    time.Time     // created before
	Older    time.Duration // created so long ago at least

	Sort    SortKey // by creation when empty
	Reverse bool
	Limit   int // the first of them alone, 0 for all
}

// Check refuses what no snapshot can be selected by, and names the field.
func (s Selection) Check() error {
	for _, field := range []struct{ name, value, known string }{
		{"trigger", string(s.Trigger), among(s.Trigger, Triggers())},
		{"level", string(s.Level), among(s.Level, Levels())},
		{"state", string(s.State), among(s.State, SnapshotStates())},
		{"sort", string(s.Sort), among(s.Sort, SortKeys())},
	} {
		if field.known != "" {
			return refuse(field.name, "unknown %s %q (one of %s)", field.name, field.value, field.known)
		}
	}
	switch {
	case s.Older < 0:
		return refuse("older_than_seconds", "%v is negative", s.Older.Seconds())
	case s.Limit < 0:
		return refuse("limit", "%d is negative", s.Limit)
	case !s.Until.IsZero() && s.Until.Before(s.Since):
		return refuse("until", "%s is before since", s.Until.Format(time.RFC3339))
	}
	return nil
}

// among lists the known values where a given one is none of them.
func among[S ~string](value S, known []S) string {
	if value == "" || slices.Contains(known, value) {
		return ""
	}
	return joined(known)
}

// from picks from all, which are sorted by creation.
func (s Selection) from(all []Snapshot, now time.Time) []Snapshot {
	all = slices.DeleteFunc(all, func(one Snapshot) bool { return !s.has(one, now) })
	slices.SortStableFunc(all, s.compare)
	if s.Reverse {
		slices.Reverse(all)
	}
	if s.Limit > 0 && s.Limit < len(all) {
		all = all[:s.Limit]
	}
	return all
}

func (s Selection) has(one Snapshot, now time.Time) bool {
	good := one.Verified != nil && one.Verified.OK
	return (s.CIDs == nil || slices.Contains(s.CIDs, one.CID)) &&
		(s.DiskCID == "" || s.DiskCID == one.DiskCID) &&
		(s.Trigger == "" || s.Trigger == one.Trigger) &&
		(s.Level == "" || s.Level == one.Level) &&
		(s.State == "" || s.State == one.State) &&
		(s.Clean == nil || *s.Clean == one.Clean) &&
		(s.Verified == nil || *s.Verified == good) &&
		!one.Created.Before(s.Since) &&
		(s.Until.IsZero() || one.Created.Before(s.Until)) &&
		(s.Older == 0 || now.Sub(one.Created) >= s.Older)
}

func (s Selection) compare(a, b Snapshot) int {
	switch s.Sort {
	case SortDisk:
		return cmp.Compare(a.DiskCID, b.DiskCID)
	case SortLevel:
		return slices.Index(Levels(), a.Level) - slices.Index(Levels(), b.Level)
	case SortSize:
		return cmp.Compare(cmp.Or(a.Size, a.DiskSize), cmp.Or(b.Size, b.DiskSize))
	case SortTrigger:
		return cmp.Compare(a.Trigger, b.Trigger)
	case SortVerified:
		return a.verified().Compare(b.verified())
	}
	return 0
}

// verified is when the snapshot was verified, zero for never.
func (s Snapshot) verified() time.Time {
	if s.Verified == nil {
		return time.Time{}
	}
	return s.Verified.Time
}

// Select is the part of the catalogue that a selection means. *RefusedError where it can
// mean nothing.
func (a *Agent) Select(s Selection) ([]Snapshot, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	return s.from(a.catalogue.list(), time.Now()), nil
}
