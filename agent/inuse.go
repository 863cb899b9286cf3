package agent

import (
	"slices"
	"time"
)

// usage is who has a snapshot for a piece of work.
type usage struct {
	work   string
	since  time.Time
	shared bool // with others who only read it
}

type usages []*usage

// use has a snapshot for a piece of work alone, or says what other work has it. It is independent
// of who holds the VM: a verification does not.
func (a *Agent) use(cid, work string) (free func(), err error) {
	return a.useAs(cid, usage{work: work})
}

// share is use for work that only reads the snapshot: any number may do that at a time.
func (a *Agent) share(cid, work string) (free func(), err error) {
	return a.useAs(cid, usage{work: work, shared: true})
}

func (a *Agent) useAs(cid string, u usage) (free func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, other := range a.inUse[cid] {
		if !other.shared || !u.shared {
			return nil, &BusyError{Work: other.work, Since: other.since}
		}
	}
	u.since = time.Now()
	mine := &u
	a.inUse[cid] = append(a.inUse[cid], mine)
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.inUse[cid] = slices.DeleteFunc(a.inUse[cid], func(other *usage) bool { return other == mine })
		if len(a.inUse[cid]) == 0 {
			delete(a.inUse, cid)
		}
	}, nil
}
