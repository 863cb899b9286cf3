package systemd

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// Config says which units are meant, and where systemd is.
type Config struct {
	Units  []string // by name; without a suffix it is that of a service
	Target string   // its services
	Slice  string   // the services in it and in slices below it
	Root   string   // of the machine whose systemd is meant; "" for this one
}

// Supervisor is systemd. It keeps nothing in memory from one call to the next.
type Supervisor struct {
	config  Config
	own     []string // units that are never stopped, since they are ours
	sockets []string // of systemd and of the bus, the preferred first
}

var _ jobs.Supervisor = (*Supervisor)(nil)

// New returns the systemd that a configuration means. It is not called yet.
func New(config Config) *Supervisor {
	config.Units = slices.Clone(config.Units)
	for i, name := range config.Units {
		config.Units[i] = withSuffix(name)
	}
	s := &Supervisor{config: config, own: []string{"quiesced.service", ownUnit()}, sockets: []string{busSocket}}
	if os.Geteuid() == 0 {
		s.sockets = []string{privateSocket, busSocket}
	}
	return s
}

// withSuffix is a unit's whole name, as systemctl would read it.
func withSuffix(name string) string {
	types := []string{".service", ".socket", ".target", ".mount", ".automount", ".timer", ".path", ".slice", ".scope", ".swap", ".device"}
	if slices.Contains(types, filepath.Ext(name)) {
		return name
	}
	return name + ".service"
}

// String names systemd.
func (s *Supervisor) String() string {
	if s.config.Root != "" {
		return "systemd of " + s.config.Root
	}
	return "systemd"
}

// Services lists the units to be stopped, of any type.
func (s *Supervisor) Services(ctx context.Context) ([]jobs.Service, error) {
	c, err := s.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot list units: %w", err)
	}
	defer c.close()
	units, err := s.choose(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("cannot list units: %w", err)
	}
	var all []jobs.Service
	for _, u := range units {
		service, err := s.service(u)
		if err != nil {
			return nil, fmt.Errorf("cannot list the processes of %q: %w", u.name(), err)
		}
		all = append(all, service)
	}
	slices.SortFunc(all, func(a, b jobs.Service) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// service is a unit as a service.
func (s *Supervisor) service(u unit) (jobs.Service, error) {
	service := jobs.Service{Name: u.name(), State: u.state(), Monitored: u.restarts(), Detail: u.detail()}
	if service.State == jobs.Stopped {
		return service, nil
	}
	var err error
	service.Processes, err = s.processes(u.text("ControlGroup"))
	return service, err
}

// Unmonitor reports units that are missing. systemd goes on restarting them.
func (s *Supervisor) Unmonitor(ctx context.Context, names []string) error {
	return s.lookFor(ctx, "unmonitor", names)
}

// Monitor reports units that are missing.
func (s *Supervisor) Monitor(ctx context.Context, names []string) error {
	return s.lookFor(ctx, "monitor", names)
}

func (s *Supervisor) lookFor(ctx context.Context, op string, names []string) error {
	l := s.link(nil)
	defer l.close()
	tasks := tasksFor(names)
	each(tasks, func(t *task) error {
		u, err := l.look(ctx, t.name)
		if err == nil && u.missing() {
			err = jobs.ErrNoService
		}
		return err
	})
	return failures(op, tasks)
}

// Stop stops units and waits for systemd's job results and for the end of their
// processes. One that systemd had to kill, after its TimeoutStopSec, is ErrNotStopped,
// although it is down. When ctx ends systemd is left at it: a Start replaces its job.
func (s *Supervisor) Stop(ctx context.Context, services []jobs.Service, told func(name string, state jobs.State)) error {
	l := s.link(told)
	defer l.close()
	var tasks []*task
	for _, service := range services {
		tasks = append(tasks, &task{name: service.Name, listed: service.Processes})
	}
	each(tasks, func(t *task) error { return l.mayStop(ctx, t) })
	for _, half := range halves(tasks) {
		each(half, func(t *task) error { return l.stop(ctx, t) })
	}
	ctx, done := lastLook(ctx)
	defer done()
	each(tasks, func(t *task) error { return l.staysDown(ctx, t) })
	return failures("stop", tasks)
}

// Start starts units and waits for systemd's job results, and until each is active:
// ready, where a unit tells (Type=notify and the like), else still there a moment
// later. Units that were given up for too many failures are tried again.
func (s *Supervisor) Start(ctx context.Context, names []string, told func(name string, state jobs.State)) error {
	l := s.link(told)
	defer l.close()
	tasks := tasksFor(names)
	for _, half := range halves(tasks) {
		each(half, func(t *task) error { return l.start(ctx, t) })
	}
	return failures("start", tasks)
}

// halves are the tasks about units that are no services, and those about services.
func halves(tasks []*task) [2][]*task {
	var h [2][]*task
	for _, t := range tasks {
		i := 0
		if strings.HasSuffix(t.name, ".service") {
			i = 1
		}
		h[i] = append(h[i], t)
	}
	return h
}
