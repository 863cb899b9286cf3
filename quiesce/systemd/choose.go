package systemd

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// choose returns the units that Services lists.
func (s *Supervisor) choose(ctx context.Context, c *conn) ([]unit, error) {
	w := &walk{c: c, own: s.own, seen: map[string]unit{}}
	chosen := map[string]unit{}
	for _, name := range s.config.Units {
		u, err := w.visit(ctx, name)
		if err != nil {
			return nil, err
		}
		if u != nil {
			chosen[u.name()] = u
		}
	}
	grouped, err := s.grouped(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, name := range grouped {
		u, err := w.visit(ctx, name)
		if err != nil {
			return nil, err
		}
		if u != nil && u.text("LoadState") == "loaded" && !w.servesConnection(u) {
			chosen[u.name()] = u
		}
	}
	for _, u := range w.seen {
		if u != nil && !u.isDown() && !w.servesConnection(u) {
			chosen[u.name()] = u
		}
	}
	return slices.Collect(maps.Values(chosen)), nil
}

// grouped are the names of the services of the target and the slice. Targets that
// the target wants are not gone into: they lead to the whole machine.
func (s *Supervisor) grouped(ctx context.Context, c *conn) ([]string, error) {
	var names []string
	if s.config.Target != "" {
		target, err := c.unit(ctx, s.config.Target)
		if err != nil {
			return nil, err
		}
		if target.missing() {
			return nil, fmt.Errorf("%w: %q", jobs.ErrNoService, s.config.Target)
		}
		names = target.names("Wants", "Requires", "Requisite", "BindsTo", "Upholds", "ConsistsOf")
	}
	for slices := []string{s.config.Slice}; len(slices) > 0 && slices[0] != ""; slices = slices[1:] {
		slice, err := c.unit(ctx, slices[0])
		if err != nil {
			return nil, err
		}
		for _, name := range slice.names("SliceOf") {
			if strings.HasSuffix(name, ".slice") {
				slices = append(slices, name)
			}
			names = append(names, name)
		}
	}
	return slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, ".service") }), nil
}

// walk goes from units to those that systemd starts or stops along with them.
type walk struct {
	c    *conn
	own  []string
	seen map[string]unit // by name, also that of an alias; nil for our own
}

// visit returns a unit, nil for our own, after it has seen what the unit leads to.
func (w *walk) visit(ctx context.Context, name string) (unit, error) {
	if u, ok := w.seen[name]; ok {
		return u, nil
	}
	u, err := w.c.unit(ctx, name)
	if err != nil {
		return nil, err
	}
	w.seen[name] = nil
	if slices.Contains(w.own, u.name()) {
		return nil, nil
	}
	w.seen[name], w.seen[u.name()] = u, u
	for _, next := range append(u.stoppedWith(), u.startedBy()...) {
		if _, err := w.visit(ctx, next); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// servesConnection says whether a unit that was visited is there for one connection
// of a socket (Accept=yes). Nobody could start it again.
func (w *walk) servesConnection(u unit) bool {
	return slices.ContainsFunc(u.names("TriggeredBy"), func(name string) bool { return w.seen[name]["Accept"] == true })
}

// takesDown says whether stopping a unit stops one of ours.
func (s *Supervisor) takesDown(ctx context.Context, c *conn, u unit) (bool, error) {
	seen := map[string]bool{}
	for queue := []unit{u}; len(queue) > 0; queue = queue[1:] {
		if slices.Contains(s.own, queue[0].name()) {
			return true, nil
		}
		for _, name := range queue[0].stoppedWith() {
			if seen[name] {
				continue
			}
			seen[name] = true
			next, err := c.unit(ctx, name)
			if err != nil {
				return false, err
			}
			queue = append(queue, next)
		}
	}
	return false, nil
}
