package wire

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/cpi"
)

// record is a run as the journal stores it.
type record struct {
	Request Request   `json:"request"`
	By      string    `json:"by,omitempty"`
	Plan    Plan      `json:"plan"`
	Boot    string    `json:"boot_id"`
	Started time.Time `json:"started_at"`
	Phase   string    `json:"phase,omitempty"`
	Calls   []call    `json:"calls,omitempty"`
	Held    *Held     `json:"held,omitempty"`
	Restore *heldDisk `json:"restore,omitempty"`
	Force   bool      `json:"force,omitempty"` // of a restore
	Moved   string    `json:"jobs_moved,omitempty"`
	Undone  string    `json:"jobs_undone,omitempty"`
	Notes   []string  `json:"notes,omitempty"`
	Freeze  *freeze   `json:"freeze,omitempty"`
	Report  *Report   `json:"report,omitempty"`
}

// freeze is how a run's freeze ended, before the run itself did.
type freeze struct {
	Broken  string             `json:"broken,omitempty"`
	Thaws   []Thaw             `json:"thaws"`
	Seconds map[string]float64 `json:"seconds"`
}

type call struct {
	DiskCID   string `json:"disk_cid"`
	Dir       string `json:"dir"`
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"` // clock ticks after boot
}

// MarshalRecord writes a record as it is stored.
func MarshalRecord(r agent.Record) ([]byte, error) {
	w := record{
		Request: FromRequest(r.Request), By: r.Request.By, Plan: FromPlan(r.Plan),
		Boot: r.Boot, Started: r.Started.UTC(), Phase: string(r.Phase),
		Moved: r.Moved, Undone: r.Undone, Notes: r.Notes,
	}
	for _, c := range r.Calls {
		w.Calls = append(w.Calls, call{c.DiskCID, c.Dir, c.Process.PID, c.Process.StartTime})
	}
	if r.Held != nil {
		held := fromHeld(*r.Held)
		w.Held = &held
	}
	if r.Restore != nil {
		w.Restore, w.Force = fromHeldDisk(*r.Restore), r.Request.Force
	}
	if f := r.Freeze; f != nil {
		w.Freeze = &freeze{f.Broken, fromThaws(f.Thaws), fromPhases(f.Phases)}
	}
	if r.Report != nil {
		report := FromReport(*r.Report)
		w.Report = &report
	}
	return json.Marshal(w)
}

// UnmarshalRecord reads a stored record. Keys it does not know are passed over:
// a newer version may have written it. Of the plan's filesystems it leaves out
// what held only while the survey was fresh: superblock, mount id, mounts, flags.
func UnmarshalRecord(doc []byte) (agent.Record, error) {
	var w record
	if err := json.Unmarshal(doc, &w); err != nil {
		return agent.Record{}, fmt.Errorf("cannot read a stored record: %w", err)
	}
	r := agent.Record{
		Request: w.Request.domain(), Plan: w.Plan.domain(), Boot: w.Boot,
		Started: w.Started, Phase: agent.Phase(w.Phase),
		Moved: w.Moved, Undone: w.Undone, Notes: w.Notes,
	}
	r.Request.By = w.By
	for _, c := range w.Calls {
		r.Calls = append(r.Calls, agent.Call{
			DiskCID: c.DiskCID, Dir: c.Dir, Process: cpi.Process{PID: c.PID, StartTime: c.StartTime},
		})
	}
	if w.Held != nil {
		held := w.Held.domain()
		r.Held = &held
	}
	if w.Restore != nil {
		r.Restore = w.Restore.domain()
		r.Request.Snapshot, r.Request.Force = r.Restore.Snapshot, w.Force
	}
	if f := w.Freeze; f != nil {
		r.Freeze = &agent.FreezeEnd{Broken: f.Broken, Thaws: toThaws(f.Thaws), Phases: toPhases(f.Seconds)}
	}
	if w.Report != nil {
		report := w.Report.Domain()
		r.Report = &report
	}
	return r, nil
}
