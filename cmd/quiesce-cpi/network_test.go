package main

import (
	"testing"
	"time"
)

// newFar makes a world whose director has a network between itself and the bus.
func newFar(t *testing.T, script, settings string) (*world, *proxy) {
	t.Helper()
	w := newWorld(t, script, settings)
	p := newProxy(t, w.bus)
	w.configure(p.url(w.bus.URL("director")), settings)
	return w, p
}

func TestASlowNetworkThatRepeatsItselfCostsNothing(t *testing.T) {
	t.Parallel()
	w, p := newFar(t, answered("snap-1"), "lease: 20s")
	p.set(faults{delay: 50 * time.Millisecond, twice: true})
	w.mustAnswer(w.call(w.request("disk-1")), "snap-1")
	w.mustThaw()
	w.mustCatalogue("snap-1", true)
}

// A network that is away for less than the lease costs nothing.
func TestANetworkThatComesBackInTimeCostsNothing(t *testing.T) {
	t.Parallel()
	away := map[string]faults{"cut": {cut: true}, "silent": {stall: true}}
	for name, f := range away {
		t.Run(name+" while the CPI works", func(t *testing.T) {
			t.Parallel()
			w, p := newFar(t, waits, "lease: 8s")
			c := w.beginHeld(w.request("disk-1"))
			p.set(f)
			time.Sleep(time.Second)
			p.set(faults{})
			time.Sleep(500 * time.Millisecond)
			w.signalCPI("answer")
			w.mustAnswer(w.endOf(c), "snap-1")
			w.mustThaw()
			w.mustCatalogue("snap-1", true)
		})
		t.Run(name+" when the CPI answers", func(t *testing.T) {
			t.Parallel()
			w, p := newFar(t, waits, "lease: 8s")
			alerts := w.alerts()
			c := w.beginHeld(w.request("disk-1"))
			p.set(f)
			w.signalCPI("answer")
			time.Sleep(time.Second)
			select {
			case a := <-c.ended:
				t.Fatalf("it ended before the daemon was told: %+v", a)
			default:
			}
			p.set(faults{})
			w.mustAnswer(w.endOf(c), "snap-1")
			w.mustThaw()
			w.mustCatalogue("snap-1", true)
			if all := alerts(); len(all) > 0 {
				t.Errorf("alerts: %q", all)
			}
		})
		t.Run(name+" while the VM is brought to rest", func(t *testing.T) {
			t.Parallel()
			w, p := newFar(t, answered("snap-1"), "lease: 8s")
			w.slowRest()
			c := w.begin(w.request("disk-1"))
			w.eventually("the VM is brought to rest", func() bool { return w.exists("bringing") })
			p.set(f)
			time.Sleep(time.Second)
			w.signalCPI("rest")
			p.set(faults{})
			w.mustAnswer(w.endOf(c), "snap-1")
			w.mustThaw()
			w.mustCatalogue("snap-1", true)
		})
	}
}

// One that is away for longer costs the rest, which is told truly.
func TestANetworkThatIsAwayForLongerThanTheLeaseCostsTheRest(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]faults{"cut": {cut: true}, "silent": {stall: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, p := newFar(t, waits, "lease: 1s")
			alerts := w.alerts()
			c := w.beginHeld(w.request("disk-1"))
			p.set(f)
			w.mustThaw()
			w.eventually("the lease has run out", func() bool { return w.status() == "" })
			p.set(faults{})
			w.signalCPI("answer")
			a := w.endOf(c)
			w.mustAnswer(a, "snap-1")
			w.contains("stderr", a.stderr, "the hold was broken")
			w.mustAlert(alerts, "snap-1", "the lease ran out")
			w.mustCatalogue("snap-1", false)
		})
	}
}

func TestADaemonThatLosesTheBusIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, waits, "lease: 20s")
	p := newProxy(t, w.bus)
	w.end()
	w.start(p.url(w.bus.URL("agent")))
	w.eventually("the daemon is on the bus", w.onBus)
	c := w.beginHeld(w.request("disk-1"))
	p.set(faults{cut: true})
	w.signalCPI("answer")
	time.Sleep(500 * time.Millisecond)
	p.set(faults{})
	w.mustAnswer(w.endOf(c), "snap-1")
	w.mustThaw()
	w.mustCatalogue("snap-1", true)
}
