// Package systemd runs services by systemd, over D-Bus.
//
// # Which units
//
// Services lists what has to be down during a run and up again after it, which is
// more than the selected services:
//
//   - the units that are configured, the services that a target wants, requires,
//     upholds or has as parts, and those in a slice and the slices below it. A
//     configured unit that is masked or missing is listed as it is, stopped as a
//     rule, and its Detail says so; one of a target or a slice is left out. systemd
//     forgets which slice a unit is in when it stops and nothing refers to it;
//   - what would start one of them during a run: sockets, paths and timers that
//     trigger it, and units that uphold it;
//   - what systemd stops along with one of them, since it requires it, is bound to
//     it or is part of it: a target that requires a database, say.
//
// Of the last two only those that are up are listed, each as a service of its own:
// so an inventory holds them, and another process can start them by name. The
// daemon's own unit is never among them, and what cannot be stopped without it is
// not stopped at all. An instance that serves one connection (Accept=yes) could not
// be started again; it is not listed, and goes on.
//
// # Order
//
// Stop first stops all that are no services, so that nothing activates a service
// that is down, then the services; Start starts in the same order, since a socket
// cannot be started when its service runs already. Within each half all jobs are
// queued at once and systemd orders them. A target is started without what it wants
// and requires: that is asked for by itself, or was down before.
//
// # What systemd does not do
//
// Restart= cannot be switched off for a loaded unit, so Unmonitor and Monitor only
// look whether the units are there: a process that ends before Stop is called, in a
// drain script say, is started again, and then stopped. One that Stop has ended
// stays down. A service that is activated over the bus (Type=dbus) or is started by
// hand comes up nevertheless; Stop reports what came up before it returned.
package systemd
