package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// policies are what a director is answered where the VM is not brought to rest.
var policies = []struct{ policy, stdout string }{
	{"degrade", `{"result":"snap-1","error":null,"log":""}`},
	{"skip", `{"result":null,"error":{"type":"Bosh::Clouds::NotImplemented","message":"quiesce-cpi: cannot bring cf/db`},
	{"fail", `{"result":null,"error":{"type":"Bosh::Clouds::CloudError","message":"quiesce-cpi: cannot bring cf/db`},
}

// mustGoBy wants a call to have ended as a policy says, with an operator told.
func (w *world) mustGoBy(i int, a answer, alerts func() []string, says string) {
	w.t.Helper()
	p := policies[i]
	if !strings.HasPrefix(a.stdout, p.stdout) || !a.state.Success() {
		w.t.Errorf("stdout %q; it ended with %v", a.stdout, a.state)
	}
	if called := w.exists("request"); called != (p.policy == "degrade") {
		w.t.Errorf("the CPI was called: %v", called)
	}
	w.contains("stderr", a.stderr, `to rest for the snapshot of disk "disk-1"`, says, "policy "+p.policy)
	if alerts != nil {
		w.mustAlert(alerts, "cannot bring cf/db", "policy "+p.policy)
	}
	w.mustThaw()
}

func TestWithoutADaemonThePolicyDecides(t *testing.T) {
	t.Parallel()
	for i, p := range policies {
		t.Run(p.policy, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, answered("snap-1"), "policy: "+p.policy)
			w.end()
			alerts := w.alerts()
			w.mustGoBy(i, w.call(w.request("disk-1")), alerts, "no daemon answers on agent.")
		})
	}
}

func TestWithAHangingDaemonThePolicyDecides(t *testing.T) {
	t.Parallel()
	for i, p := range policies {
		t.Run(p.policy, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, answered("snap-1"), "policy: "+p.policy)
			alerts := w.alerts()
			w.signal(syscall.SIGSTOP)
			a := w.call(w.request("disk-1"))
			w.signal(syscall.SIGCONT)
			w.mustGoBy(i, a, alerts, "no answer from the daemon within 1s")
			if a.took > 10*time.Second {
				t.Errorf("it took %v", a.took)
			}
			if all := w.snapshots(); len(all) != 0 {
				t.Errorf("the catalogue is %+v", all)
			}
		})
	}
}

func TestWithoutABusASnapshotIsTakenAllTheSame(t *testing.T) {
	t.Parallel()
	w := newWorld(t, answered("snap-1"), "")
	w.bus.Stop()
	a := w.call(w.request("disk-1"))
	w.mustGoBy(0, a, nil, "cannot connect to the bus")
	w.contains("stderr", a.stderr, "cannot tell the health monitor")
}

func TestADaemonThatRefusesIsHeard(t *testing.T) {
	t.Parallel()
	w := newWorld(t, answered("snap-1"), "level: stop\npolicy: fail") // which needs a supervisor
	alerts := w.alerts()
	w.mustGoBy(2, w.call(w.request("disk-1")), alerts, "supervisor")
}

func TestAWrongConfigurationLosesNoSnapshot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, answered("snap-1"), "lease: never")
	a := w.call(w.request("disk-1"))
	w.mustGoBy(0, a, nil, "cannot use the configuration "+w.config)
	w.must(os.Remove(w.config))
	a = w.call(w.request("disk-1"))
	w.mustGoBy(0, a, nil, "cannot read the configuration")
}
