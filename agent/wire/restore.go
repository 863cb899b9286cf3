package wire

import (
	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce/remount"
)

// RestoreRequest is the argument of restore_snapshot and plan_restore.
type RestoreRequest struct {
	ID    string `json:"id,omitempty"`
	CID   string `json:"snapshot_cid"`
	Force bool   `json:"force,omitempty"`
}

// ParseRestoreRequest reads one request document and nothing after it.
func ParseRestoreRequest(doc []byte) (agent.RestoreRequest, error) {
	r, err := parse[RestoreRequest](doc)
	return agent.RestoreRequest{ID: r.ID, CID: r.CID, Force: r.Force}, err
}

// FromRestoreRequest is the request's JSON form.
func FromRestoreRequest(r agent.RestoreRequest) RestoreRequest {
	return RestoreRequest{ID: r.ID, CID: r.CID, Force: r.Force}
}

// RestorePlan is what a restore is going to do.
type RestorePlan struct {
	Snapshot string   `json:"snapshot_cid"`
	Disk     string   `json:"disk_cid"`
	Mounts   []string `json:"mounts"`
	Warnings []string `json:"warnings,omitempty"`
	Notes    []string `json:"notes,omitempty"`
	Actions  []Action `json:"actions"`

	// Steps are what the director is to be told, by whoever operates it, where it has the
	// disk; CannotMake is why the new disk has to be made elsewhere.
	Steps      []string `json:"steps,omitempty"`
	CannotMake string   `json:"cannot_make,omitempty"`
}

// FromRestorePlan is the plan's JSON form.
func FromRestorePlan(p agent.RestorePlan) RestorePlan {
	w := RestorePlan{
		Snapshot: p.Snapshot.CID, Disk: p.Disk.CID, Mounts: p.Mounts, Warnings: p.Warnings, Notes: p.Notes,
		Actions: FromPlan(p.Plan).Actions, Steps: p.Steps,
	}
	if p.CannotMake != nil {
		w.CannotMake = p.CannotMake.Error()
	}
	return w
}

// Restored is what a restore has done to the persistent disk.
type Restored struct {
	Snapshot string   `json:"snapshot_cid"`
	Disk     string   `json:"disk_cid"`
	Side     string   `json:"in_place,omitempty"` // restored, before, apart; nothing where no disk is
	Other    string   `json:"other_disk_cid,omitempty"`
	Steps    []string `json:"steps,omitempty"`
}

func fromRestored(r agent.Restored) *Restored {
	return &Restored{Snapshot: r.Snapshot, Disk: r.Disk, Side: string(r.Side), Other: r.Other, Steps: r.Steps}
}

func (w Restored) domain() *agent.Restored {
	return &agent.Restored{Snapshot: w.Snapshot, Disk: w.Disk, Side: agent.DiskSide(w.Side), Other: w.Other, Steps: w.Steps}
}

// heldDisk is what a restore holds of a disk, as it is stored.
type heldDisk struct {
	Snapshot string      `json:"snapshot_cid"`
	Disk     string      `json:"disk_cid"`
	New      string      `json:"new_disk_cid,omitempty"`
	Mounts   []mount     `json:"mounts,omitempty"`
	Between  *difference `json:"between,omitempty"`
	Back     bool        `json:"back,omitempty"`
	Side     string      `json:"in_place,omitempty"`
	Call     *diskCall   `json:"call,omitempty"`
}

type mount struct {
	Point   string `json:"point"`
	Root    string `json:"root"`
	Type    string `json:"type"`
	Options string `json:"options"`
	Super   string `json:"superblock_options"`
}

type difference struct {
	Offset int64  `json:"offset"`
	One    string `json:"disk"`
	Other  string `json:"new_disk"`
}

type diskCall struct {
	Dir       string `json:"dir"`
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"` // clock ticks after boot
	Boot      string `json:"boot_id"`
}

func fromHeldDisk(d agent.HeldDisk) *heldDisk {
	w := &heldDisk{Snapshot: d.Snapshot, Disk: d.Disk, New: d.New, Back: d.Back, Side: string(d.Side)}
	for _, m := range d.Mounts {
		w.Mounts = append(w.Mounts, mount(m))
	}
	if d.Between != nil {
		between := difference(*d.Between)
		w.Between = &between
	}
	if c := d.Call; c != nil {
		w.Call = &diskCall{c.Dir, c.Process.PID, c.Process.StartTime, c.Boot}
	}
	return w
}

func (w heldDisk) domain() *agent.HeldDisk {
	d := &agent.HeldDisk{Snapshot: w.Snapshot, Disk: w.Disk, New: w.New, Back: w.Back, Side: agent.DiskSide(w.Side)}
	for _, m := range w.Mounts {
		d.Mounts = append(d.Mounts, remount.Mount(m))
	}
	if w.Between != nil {
		between := remount.Difference(*w.Between)
		d.Between = &between
	}
	if c := w.Call; c != nil {
		d.Call = &agent.DiskCall{Dir: c.Dir, Process: cpi.Process{PID: c.PID, StartTime: c.StartTime}, Boot: c.Boot}
	}
	return d
}
