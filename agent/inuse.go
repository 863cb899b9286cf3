package agent

import "time"

// use has a snapshot for a piece of work, or says what other work has it. It is independent
// of who holds the VM: a verification does not.
func (a *Agent) use(cid, work string) (free func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h, taken := a.inUse[cid]; taken {
		return nil, &BusyError{Work: h.work, Since: h.since}
	}
	a.inUse[cid] = &holder{work: work, since: time.Now()}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.inUse, cid)
	}, nil
}
