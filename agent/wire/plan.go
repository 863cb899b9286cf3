package wire

import (
	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/quiesce"
)

// Plan is what a run is going to do, or did.
type Plan struct {
	Asked       string       `json:"level_asked"`
	Level       string       `json:"level"`
	Degraded    string       `json:"degraded,omitempty"`
	LevelNote   string       `json:"level_note,omitempty"`
	Disks       []Disk       `json:"disks"`
	Filesystems []Filesystem `json:"filesystems"`
	Holds       bool         `json:"holds,omitempty"` // somebody else takes the snapshots
	JobsAtRest  bool         `json:"jobs_at_rest,omitempty"`
	CPIFreezes  bool         `json:"cpi_freezes,omitempty"`
	Notes       []string     `json:"notes,omitempty"`
	Actions     []Action     `json:"actions"`
}

// Disk is a configured disk.
type Disk struct {
	CID    string   `json:"disk_cid"`
	Device string   `json:"device,omitempty"`
	Mounts []string `json:"mounts,omitempty"`
	Size   int64    `json:"size,omitempty"` // in bytes, where it is known
}

// Filesystem is a superblock on the disks.
type Filesystem struct {
	Mount   string   `json:"mount"`
	Device  string   `json:"device"` // major:minor of the superblock
	Type    string   `json:"type"`
	Devices []string `json:"block_devices,omitempty"`
	Disks   []string `json:"disk_cids"`
	Rank    int      `json:"rank"`
}

// Action is one step of a plan.
type Action struct {
	Kind   string  `json:"action"`
	Target string  `json:"target"`
	Undo   string  `json:"undo,omitempty"`
	Budget float64 `json:"budget_seconds"`
}

// FromPlan is the plan's JSON form.
func FromPlan(p agent.Plan) Plan {
	w := Plan{
		Asked: string(p.Asked), Level: string(p.Level), Degraded: p.Degraded, LevelNote: p.LevelNote, Holds: p.Holds, JobsAtRest: p.JobsAtRest, CPIFreezes: p.CPIFreezes, Notes: p.Notes,
		Disks: []Disk{}, Filesystems: []Filesystem{}, Actions: []Action{},
	}
	for _, d := range p.Disks {
		w.Disks = append(w.Disks, Disk{d.CID, d.Device, d.Mounts, p.Sizes[d.CID]})
	}
	for _, f := range p.Filesystems {
		w.Filesystems = append(w.Filesystems, FromFilesystem(f))
	}
	for _, a := range p.Actions {
		w.Actions = append(w.Actions, Action{string(a.Kind), a.Target, a.Undo(), a.Budget.Seconds()})
	}
	return w
}

// FromFilesystem is the filesystem's JSON form.
func FromFilesystem(f quiesce.Filesystem) Filesystem {
	return Filesystem{f.Path, f.String(), f.Type, f.Devices, f.Disks, f.Rank}
}

// domain is the part of a stored plan that whoever takes up a run needs.
func (w Plan) domain() agent.Plan {
	p := agent.Plan{
		Asked: agent.Level(w.Asked), Level: agent.Level(w.Level), Degraded: w.Degraded, LevelNote: w.LevelNote,
		Holds: w.Holds, JobsAtRest: w.JobsAtRest, CPIFreezes: w.CPIFreezes, Notes: w.Notes,
	}
	for _, d := range w.Disks {
		p.Disks = append(p.Disks, quiesce.Disk{CID: d.CID, Device: d.Device, Mounts: d.Mounts})
		if d.Size > 0 {
			p.Sizes = with(p.Sizes, d.CID, d.Size)
		}
	}
	for _, f := range w.Filesystems {
		p.Filesystems = append(p.Filesystems, quiesce.Filesystem{
			Path: f.Mount, Type: f.Type, Devices: f.Devices, Disks: f.Disks, Rank: f.Rank,
		})
	}
	for _, a := range w.Actions {
		p.Actions = append(p.Actions, agent.Action{
			Kind: agent.ActionKind(a.Kind), Target: a.Target, Budget: duration(a.Budget),
		})
	}
	return p
}

// with sets a key of a map that need not be there yet.
func with(sizes map[string]int64, cid string, size int64) map[string]int64 {
	if sizes == nil {
		sizes = map[string]int64{}
	}
	sizes[cid] = size
	return sizes
}
