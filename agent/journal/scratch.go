package journal

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/cpi"
)

// ScratchFile keeps which disk was made for a verification, in the state directory.
type ScratchFile struct{ Path string }

func (f ScratchFile) file() file { return file{f.Path, "which disk was made for a verification"} }

type scratch struct {
	Snapshot  string    `json:"snapshot_cid"`
	Boot      string    `json:"boot_id"`
	Began     time.Time `json:"began"`
	Dir       string    `json:"call_dir,omitempty"`
	PID       int       `json:"call_pid,omitempty"`
	StartTime uint64    `json:"call_start_time,omitempty"`
	Making    bool      `json:"making,omitempty"`
	Disk      string    `json:"disk_cid,omitempty"`
	Path      string    `json:"path,omitempty"`
}

// Put replaces the file whole, and durably.
func (f ScratchFile) Put(s agent.Scratch) error {
	w := scratch{Snapshot: s.Snapshot, Boot: s.Boot, Began: s.Began.UTC(), Making: s.Making, Disk: s.Disk, Path: s.Path}
	if s.Call != nil {
		w.Dir, w.PID, w.StartTime = s.Call.Dir, s.Call.Process.PID, s.Call.Process.StartTime
	}
	return f.file().put(json.Marshal(w))
}

// Get reads the file; without one there is no such disk.
func (f ScratchFile) Get() (agent.Scratch, bool, error) {
	doc, ok, err := f.file().get()
	if !ok || err != nil {
		return agent.Scratch{}, false, err
	}
	var w scratch
	if err := json.Unmarshal(doc, &w); err != nil {
		return agent.Scratch{}, false, fmt.Errorf("cannot read %s: %s: %w", f.file().what, f.Path, err)
	}
	s := agent.Scratch{Snapshot: w.Snapshot, Boot: w.Boot, Began: w.Began, Making: w.Making, Disk: w.Disk, Path: w.Path}
	if w.Dir != "" {
		s.Call = &agent.Call{Dir: w.Dir, Process: cpi.Process{PID: w.PID, StartTime: w.StartTime}}
	}
	return s, true, nil
}

// Remove forgets it.
func (f ScratchFile) Remove() error { return f.file().remove() }
