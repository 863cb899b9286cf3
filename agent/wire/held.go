package wire

import (
	"encoding/json"
	"fmt"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/quiesce/jobs"
)

// Held is what a run holds of the jobs, as it is stored.
type Held struct {
	Run        string        `json:"run_id"`
	Boot       string        `json:"boot,omitempty"`
	Trigger    string        `json:"trigger"`
	Level      string        `json:"level"`
	PreStopped bool          `json:"pre_stop,omitempty"`
	Drained    bool          `json:"drain,omitempty"`
	Stopped    bool          `json:"stop,omitempty"`
	PreStarted bool          `json:"pre_start,omitempty"`
	Started    bool          `json:"started,omitempty"`
	Services   []heldService `json:"services,omitempty"`
	Locked     [][]string    `json:"locked_jobs,omitempty"`
	Hooked     []string      `json:"pre_snapshot_jobs,omitempty"`
	Disk       *heldDisk     `json:"disk,omitempty"` // of a restore
}

type heldService struct {
	Name      string    `json:"service"`
	Processes []process `json:"processes,omitempty"`
	Failing   bool      `json:"failing,omitempty"`
}

type process struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"` // clock ticks after boot
}

func fromHeld(h agent.Held) Held {
	w := Held{
		Run: h.Run, Boot: h.Boot, Trigger: string(h.Trigger), Level: string(h.Level), PreStopped: h.PreStopped,
		Drained: h.Drained, Stopped: h.Stopped, PreStarted: h.PreStarted, Started: h.Started, Locked: h.Locked, Hooked: h.Hooked,
	}
	if h.Disk != nil {
		w.Disk = fromHeldDisk(*h.Disk)
	}
	for _, s := range h.Services {
		one := heldService{Name: s.Name, Failing: s.Failing}
		for _, p := range s.Processes {
			one.Processes = append(one.Processes, process(p))
		}
		w.Services = append(w.Services, one)
	}
	return w
}

func (w Held) domain() agent.Held {
	h := agent.Held{
		Run: w.Run, Boot: w.Boot, Trigger: agent.Trigger(w.Trigger), Level: agent.Level(w.Level), PreStopped: w.PreStopped,
		Drained: w.Drained, Stopped: w.Stopped, PreStarted: w.PreStarted, Started: w.Started, Locked: w.Locked, Hooked: w.Hooked,
	}
	if w.Disk != nil {
		h.Disk = w.Disk.domain()
	}
	for _, s := range w.Services {
		one := agent.HeldService{Name: s.Name, Failing: s.Failing}
		for _, p := range s.Processes {
			one.Processes = append(one.Processes, jobs.Process(p))
		}
		h.Services = append(h.Services, one)
	}
	return h
}

// MarshalHeld writes what is held as it is stored beside the socket.
func MarshalHeld(h agent.Held) ([]byte, error) { return json.Marshal(fromHeld(h)) }

// UnmarshalHeld reads it.
func UnmarshalHeld(doc []byte) (agent.Held, error) {
	var w Held
	if err := json.Unmarshal(doc, &w); err != nil {
		return agent.Held{}, fmt.Errorf("cannot read what is held of the jobs: %w", err)
	}
	return w.domain(), nil
}
