package monit

import (
	"context"
	"net/http"
	"net/url"
)

// wakeUps is how often monit is woken for one service in one call: once it waits for the
// end of the service's program, then for the process; and once may come too early. Monit
// counts its sleeps, not the time: each takes 100 ms of what it grants the program.
const wakeUps = 3

// wakeMonit ends monit's sleep when what it waits for has come. While it starts or stops a
// service it sleeps 100 ms until it looks whether the program has ended, then 100 ms or
// more until it looks for the process, and does nothing for the next service meanwhile:
// for 50 services that is 10 s. What "monit validate" asks for ends a sleep.
func (k *call) wakeMonit(ctx context.Context) {
	come := false
	for _, t := range k.open() {
		if k.sleepsOver(t) && k.hasCome(ctx, t) {
			t.wakeUps++
			come = true
		}
	}
	if !come {
		return
	}
	k.pause = shortPause
	_, _ = k.client.request(ctx, http.MethodPost, "/_runtime", url.Values{"action": {"validate"}})
}

// sleepsOver says that monit may wait for something of t's, for which it may be woken.
func (k *call) sleepsOver(t *task) bool {
	return t.wakeUps < wakeUps && t.entry.pendingAction() == k.action
}

func (k *call) hasCome(ctx context.Context, t *task) bool {
	switch k.action {
	case "stop":
		return t.waited && len(t.running) == 0
	case "start":
		_, runs := k.client.fromPIDFile(ctx, t.name)
		return runs
	}
	return false
}

// anyStarted says that a service has come up which monit may be woken for. It asks
// monit nothing.
func (k *call) anyStarted() bool {
	if k.action != "start" {
		return false
	}
	for _, t := range k.open() {
		if path, known := k.client.pidFile(t.name); known && k.sleepsOver(t) {
			if _, runs := readPIDFile(path); runs {
				return true
			}
		}
	}
	return false
}
