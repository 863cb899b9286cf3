package wire

import (
	"time"

	"github.com/quiesced/quiesced/agent"
)

// Report is how a run ended.
type Report struct {
	ID        string             `json:"id"`
	Trigger   string             `json:"trigger"`
	By        string             `json:"by,omitempty"`
	Outcome   string             `json:"outcome"`
	Asked     string             `json:"level_asked"`
	Reached   string             `json:"level_reached"`
	Clean     bool               `json:"clean"`
	Reason    string             `json:"reason,omitempty"`
	Disks     []DiskResult       `json:"disks"`
	Thaws     []Thaw             `json:"thaws,omitempty"`
	Notes     []string           `json:"notes,omitempty"`
	Seconds   map[string]float64 `json:"seconds,omitempty"`
	Started   time.Time          `json:"started_at"`
	Ended     time.Time          `json:"ended_at"`
	Error     string             `json:"error,omitempty"`
	Yielded   bool               `json:"yielded,omitempty"`
	Recovered bool               `json:"recovered,omitempty"`
	Unbroken  *bool              `json:"unbroken,omitempty"` // of a hold
	Restore   *Restored          `json:"restore,omitempty"`  // of a restore
	Metrics   []Sample           `json:"metrics,omitempty"`  // of this run; not stored
}

// DiskResult is what became of one disk.
type DiskResult struct {
	CID         string  `json:"disk_cid"`
	SnapshotCID string  `json:"snapshot_cid,omitempty"`
	Clean       bool    `json:"clean"`
	Unresolved  bool    `json:"unresolved,omitempty"`
	Seconds     float64 `json:"seconds,omitempty"`
	Error       string  `json:"error,omitempty"`
}

// Thaw is how the freeze of one filesystem ended.
type Thaw struct {
	Mount  string  `json:"mount"`
	Cause  string  `json:"cause"`
	State  string  `json:"state"`
	Frozen float64 `json:"frozen_seconds"`
}

// Sample is one Prometheus sample.
type Sample struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
	Value  float64           `json:"value"`
}

// FromReport is the report's JSON form, without samples.
func FromReport(r agent.Report) Report {
	w := Report{
		ID: r.ID, Trigger: string(r.Trigger), By: r.By, Outcome: string(r.Outcome),
		Asked: string(r.Asked), Reached: string(r.Reached), Clean: r.Clean, Reason: r.Reason,
		Disks: make([]DiskResult, 0, len(r.Disks)), Started: r.Started.UTC(), Ended: r.Ended.UTC(),
		Error: r.Error, Yielded: r.Yielded, Recovered: r.Recovered, Notes: r.Notes, Unbroken: r.Unbroken,
	}
	for _, d := range r.Disks {
		w.Disks = append(w.Disks, DiskResult{d.CID, d.SnapshotCID, d.Clean, d.Unresolved, d.Took.Seconds(), d.Error})
	}
	w.Thaws, w.Seconds = fromThaws(r.Thaws), fromPhases(r.Phases)
	if r.Restore != nil {
		w.Restore = fromRestored(*r.Restore)
	}
	return w
}

func fromThaws(all []agent.Thaw) []Thaw {
	var w []Thaw
	for _, t := range all {
		w = append(w, Thaw{t.Mount, t.Cause, t.State, t.FrozenFor.Seconds()})
	}
	return w
}

func toThaws(w []Thaw) []agent.Thaw {
	var all []agent.Thaw
	for _, t := range w {
		all = append(all, agent.Thaw{Mount: t.Mount, Cause: t.Cause, State: t.State, FrozenFor: duration(t.Frozen)})
	}
	return all
}

func fromPhases(phases map[agent.Phase]time.Duration) map[string]float64 {
	var w map[string]float64
	for phase, took := range phases {
		if w == nil {
			w = map[string]float64{}
		}
		w[string(phase)] = took.Seconds()
	}
	return w
}

func toPhases(w map[string]float64) map[agent.Phase]time.Duration {
	var phases map[agent.Phase]time.Duration
	for phase, took := range w {
		if phases == nil {
			phases = map[agent.Phase]time.Duration{}
		}
		phases[agent.Phase(phase)] = duration(took)
	}
	return phases
}

// Domain is the report that the JSON form tells of.
func (w Report) Domain() agent.Report {
	r := agent.Report{
		ID: w.ID, Trigger: agent.Trigger(w.Trigger), By: w.By, Outcome: agent.Outcome(w.Outcome),
		Asked: agent.Level(w.Asked), Reached: agent.Level(w.Reached), Clean: w.Clean, Reason: w.Reason,
		Started: w.Started, Ended: w.Ended, Error: w.Error, Yielded: w.Yielded, Recovered: w.Recovered, Notes: w.Notes, Unbroken: w.Unbroken,
	}
	for _, d := range w.Disks {
		r.Disks = append(r.Disks, agent.DiskResult{
			CID: d.CID, SnapshotCID: d.SnapshotCID, Clean: d.Clean,
			Unresolved: d.Unresolved, Took: duration(d.Seconds), Error: d.Error,
		})
	}
	r.Thaws, r.Phases = toThaws(w.Thaws), toPhases(w.Seconds)
	if w.Restore != nil {
		r.Restore = w.Restore.domain()
	}
	return r
}

func duration(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second)).Round(time.Microsecond)
}
