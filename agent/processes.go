package agent

import (
	"slices"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/jobs/processes"
)

// Processes is what the operator configured about the jobs' processes.
type Processes struct {
	Layout jobs.Layout

	// Stopped is the file by which bosh-agent and we tell who stopped the services;
	// "" where nobody else drives the supervisor.
	Stopped string

	// FailOnWriters has a run at level stop fail when processes that no supervisor
	// knows have files of the disks open for writing. Else its report lists them.
	FailOnWriters bool
}

// Supervised is what the agent needs of the jobs' processes.
type Supervised struct {
	Supervisor jobs.Supervisor // nil when none is configured
	Scripts    *jobs.Runner
	Held       HeldStore
	YieldFile  string // there while the director has the jobs to itself; on a tmpfs
}

// HeldStore keeps what is held of the jobs where it survives the daemon and the
// journal's loss, if not a reboot.
type HeldStore interface {
	Put(Held) error
	Get() (Held, bool, error)
	Remove() error
}

// Held is what a run did to the jobs or intended, and has not undone yet. It is
// durable before each step, in the run's record and beside the socket.
type Held struct {
	Run     string
	Boot    string // of what is kept beside the socket: boot id of the kernel under which it was
	Trigger Trigger
	Level   Level

	PreStopped bool // pre-stop scripts were begun
	Drained    bool // services were unmonitored, and drain scripts begun
	Stopped    bool // the services' stop was begun; the marker is ours
	PreStarted bool // pre-start scripts were run
	Started    bool // the services run again; post-start scripts are to follow
	Services   []HeldService

	Locked [][]string // jobs whose lock scripts were begun, in layers
	Hooked []string   // jobs whose pre-snapshot scripts were begun; "" for those of no job

	Disk *HeldDisk // of a restore; nil for none
}

// HeldService is a service that ran before, or was to, and is to after.
type HeldService struct {
	Name      string
	Processes []jobs.Process // before
	Failing   bool           // its supervisor was not content with it before
}

// Empty says that nothing is left to be undone.
func (h *Held) Empty() bool {
	return !h.PreStopped && !h.Drained && !h.Stopped && len(h.Hooked) == 0 && len(h.Locked) == 0 && h.Disk == nil
}

// process says whether the services' part of the jobs is held.
func (h *Held) processes() bool { return h.PreStopped || h.Drained || h.Stopped }

// names are those of the services that ran before.
func (h *Held) names() []string {
	var all []string
	for _, s := range h.Services {
		all = append(all, s.Name)
	}
	return all
}

// failing says that a service's supervisor was not content with it before.
func (h *Held) failing(name string) bool {
	return slices.ContainsFunc(h.Services, func(s HeldService) bool { return s.Name == name && s.Failing })
}

// drained are the services that still run as a process that they had before: what
// was drained is no good until it was started anew.
func (h *Held) drained() []HeldService {
	return slices.DeleteFunc(slices.Clone(h.Services), func(s HeldService) bool {
		return !slices.ContainsFunc(s.Processes, processes.Alive)
	})
}

// marker is the file by which two masters tell who stopped the services, nil for
// none.
func (a *Agent) marker() *jobs.Marker {
	if a.Settings.Processes.Stopped == "" {
		return nil
	}
	return &jobs.Marker{Path: a.Settings.Processes.Stopped}
}

// mark says who stopped the services. Where there is no other master, nobody did.
func (a *Agent) mark() (jobs.Mark, error) {
	if m := a.marker(); m != nil {
		return m.Read()
	}
	return jobs.Mark{}, nil
}

// serviceState is how one service is, of those given.
func serviceState(all []jobs.Service, name string) (jobs.Service, bool) {
	for _, s := range all {
		if s.Name == name {
			return s, true
		}
	}
	return jobs.Service{}, false
}
