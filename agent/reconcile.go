package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/quiesced/quiesced/cpi"
)

// ReconcileOptions say what is done about what a comparison finds, beside filling in what
// the CPI knows better.
type ReconcileOptions struct {
	Adopt bool   // take snapshots into the catalogue that only the CPI has
	Drop  bool   // forget those that the CPI does not have
	By    string // who asks, for the record of what is adopted
}

// Reconciliation is what came of comparing the catalogue with the CPI's list.
type Reconciliation struct {
	Known    int                // in both
	Sized    int                // of those, whose sizes were not known before
	Resolved []Snapshot         // whose CIDs were not known before
	Missing  []Snapshot         // not with the CPI, and not dropped
	Dropped  []Snapshot         // from the catalogue
	Unknown  []cpi.SnapshotInfo // of this instance's disks, not in the catalogue, and not adopted
	Adopted  []Snapshot         // by the catalogue
}

// Reconcile compares the catalogue with what the CPI has of this instance's disks. Sizes are
// filled in, and an unresolved entry gets its CID where exactly one unknown snapshot was made
// of its disk at its time. Errors: *BusyError; *RefusedError where the CPI cannot list.
func (a *Agent) Reconcile(ctx context.Context, o ReconcileOptions) (Reconciliation, error) {
	var r Reconciliation
	err := a.work(ctx, "reconcile", func(ctx context.Context) error {
		list, err := a.listSnapshots(ctx)
		if err != nil {
			return err
		}
		a.edit.Lock()
		defer a.edit.Unlock()
		c := comparison{
			known: a.catalogue.list(), list: list, mine: a.disksKnown(), instance: a.Settings.Instance,
			late: a.Settings.Budgets.Snapshot, options: o,
		}
		change := c.compare()
		if !change.Empty() {
			if err := a.write(change); err != nil {
				return fmt.Errorf("cannot record what was found: %w", err)
			}
		}
		a.Log.Info("reconciled with the CPI", "known", c.found.Known, "resolved", len(c.found.Resolved),
			"missing", len(c.found.Missing), "dropped", len(c.found.Dropped), "unknown", len(c.found.Unknown), "adopted", len(c.found.Adopted))
		r = c.found
		return nil
	})
	return r, err
}

func (a *Agent) listSnapshots(ctx context.Context) ([]cpi.SnapshotInfo, error) {
	if a.CPI == nil {
		return nil, refuse("", "no CPI is configured (cpi.path)")
	}
	ctx, cancel := context.WithTimeout(ctx, a.Settings.Budgets.Snapshot)
	defer cancel()
	list, err := a.CPI.ListSnapshots(ctx)
	switch {
	case cpi.CannotDo(err):
		return nil, refuse("", "the CPI cannot list snapshots, so there is nothing to compare with: %w", err)
	case err != nil:
		return nil, fmt.Errorf("cannot list the CPI's snapshots: %w", err)
	}
	return list, nil
}

// disksKnown are the CIDs of the disks that are attached, or of which there are snapshots.
func (a *Agent) disksKnown() map[string]bool {
	mine := map[string]bool{}
	if disks, err := a.Settings.attached(); err == nil {
		mine = disksOf(disks)
	}
	for _, s := range a.catalogue.list() {
		mine[s.DiskCID] = true
	}
	return mine
}

// comparison compares the catalogue with a CPI's list. It reads nothing else.
type comparison struct {
	known    []Snapshot
	list     []cpi.SnapshotInfo
	mine     map[string]bool // CIDs of disks
	instance Instance
	late     time.Duration // how long after it was told the CPI may have made a snapshot
	options  ReconcileOptions

	vague  bool // the list has snapshots of which it tells no disk or no time
	found  Reconciliation
	change Change
}

func (c *comparison) compare() Change {
	unknown := c.unknown()
	byCID := map[string]cpi.SnapshotInfo{}
	for _, info := range c.list {
		byCID[info.CID] = info
	}
	for _, s := range c.known {
		info, there := byCID[s.CID]
		switch {
		case there:
			c.found.Known++
			c.size(s, info)
		case s.State == SnapshotUnresolved:
			unknown = c.resolve(s, unknown)
		default:
			c.missing(s)
		}
	}
	for _, info := range unknown {
		c.adopt(info)
	}
	return c.change
}

// unknown is what the CPI has of this instance's disks beside the catalogue.
func (c *comparison) unknown() []cpi.SnapshotInfo {
	cids := map[string]bool{}
	for _, s := range c.known {
		cids[s.CID] = true
	}
	var found []cpi.SnapshotInfo
	for _, info := range c.list {
		if !cids[info.CID] && (info.DiskCID == "" || info.Created.IsZero()) {
			c.vague = true
		}
		if c.mine[info.DiskCID] && info.DiskCID != "" && !cids[info.CID] && c.ours(info) {
			found = append(found, info)
		}
	}
	slices.SortFunc(found, func(a, b cpi.SnapshotInfo) int { return a.Created.Compare(b.Created) })
	return found
}

// ours says whether a snapshot is this instance's, as far as its metadata tells: a disk may
// have been another's before.
func (c *comparison) ours(info cpi.SnapshotInfo) bool {
	for key, want := range map[string]string{"deployment": c.instance.Deployment, "job": c.instance.Job, "instance_id": c.instance.ID} {
		if value := said(info, key); value != "" && value != want {
			return said(info, "deployment") == "self" // as a director names its own VM
		}
	}
	return true
}

// said is what a snapshot's metadata says, "" for nothing. Of a snapshot of ours it names no
// director.
func said(info cpi.SnapshotInfo, key string) string {
	value, _ := info.Metadata[key].(string)
	return value
}

// size fills in what the CPI knows of a snapshot.
func (c *comparison) size(s Snapshot, info cpi.SnapshotInfo) {
	before := s
	if info.Size > 0 {
		s.Size = info.Size
	}
	if s.DiskSize == 0 {
		s.DiskSize = info.DiskSize
	}
	if s == before {
		return
	}
	if before.Size == 0 && before.DiskSize == 0 || before.Size == 0 && s.Size > 0 {
		c.found.Sized++
	}
	c.change.Snapshots = append(c.change.Snapshots, s)
}

// earlier is by how much a CPI's clock may be behind.
const earlier = time.Minute

// candidates are the snapshots that an unresolved entry may stand for.
func (c *comparison) candidates(s Snapshot, unknown []cpi.SnapshotInfo) []cpi.SnapshotInfo {
	var may []cpi.SnapshotInfo
	for _, info := range unknown {
		if info.DiskCID == s.DiskCID && info.Created.After(s.Created.Add(-earlier)) && info.Created.Before(s.Created.Add(c.late+earlier)) {
			may = append(may, info)
		}
	}
	return may
}

// resolve gives an unresolved entry its CID, where there is one candidate and no other entry
// that may be it. Without any, in a list that tells enough, there is no such snapshot. It
// returns those that are unknown still.
func (c *comparison) resolve(s Snapshot, unknown []cpi.SnapshotInfo) []cpi.SnapshotInfo {
	may := c.candidates(s, unknown)
	switch {
	case len(may) == 0 && !c.vague:
		c.missing(s)
		return unknown
	case len(may) != 1 || c.contested(s, may[0]):
		c.found.Missing = append(c.found.Missing, s)
		return unknown
	}
	s.CID, s.State, s.Note = may[0].CID, SnapshotKnown, "its CID is from the CPI's list: "+s.Note
	s.Size, s.DiskSize = may[0].Size, max(s.DiskSize, may[0].DiskSize)
	c.found.Resolved = append(c.found.Resolved, s)
	c.change.Snapshots = append(c.change.Snapshots, s)
	return slices.DeleteFunc(slices.Clone(unknown), func(info cpi.SnapshotInfo) bool { return info.CID == s.CID })
}

// contested says whether another unresolved entry may stand for a snapshot, too.
func (c *comparison) contested(s Snapshot, info cpi.SnapshotInfo) bool {
	return slices.ContainsFunc(c.known, func(other Snapshot) bool {
		return other.State == SnapshotUnresolved && other.Key() != s.Key() && len(c.candidates(other, []cpi.SnapshotInfo{info})) > 0
	})
}

// missing is an entry of what the CPI does not have.
func (c *comparison) missing(s Snapshot) {
	if !c.options.Drop {
		c.found.Missing = append(c.found.Missing, s)
		return
	}
	c.found.Dropped = append(c.found.Dropped, s)
	c.change.Gone = append(c.change.Gone, s.Key())
}

// adopt makes an entry of what only the CPI has. How it was taken nobody knows, so it is not
// clean; where its metadata names a director, that one's database owns it.
func (c *comparison) adopt(info cpi.SnapshotInfo) {
	if !c.options.Adopt {
		c.found.Unknown = append(c.found.Unknown, info)
		return
	}
	s := Snapshot{
		CID: info.CID, DiskCID: info.DiskCID, State: SnapshotKnown, Level: LevelNone, Created: info.Created,
		Size: info.Size, DiskSize: info.DiskSize, By: c.options.By, Note: "adopted from the CPI's list: how it was taken is not known",
		Held: said(info, "director_name") != "" || said(info, "director_uuid") != "",
	}
	c.found.Adopted = append(c.found.Adopted, s)
	c.change.Snapshots = append(c.change.Snapshots, s)
}
