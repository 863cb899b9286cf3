// Package jobstest is the conformance suite of jobs.Supervisor: what each
// supervisor has to show with real processes, which are looked for from outside.
//
// A Bed is one supervisor under test. Run plays every case on a bed of its own, or
// on the same one: names of services are not used twice. RunEmpty plays what holds
// where a supervisor has no services.
package jobstest
