// Package agent is the domain: a request becomes a plan, the plan a run, the
// run a report.
//
// One run happens at a time. It prepares everything that takes time, brings
// the disks to rest, has the CPI snapshot them, and resumes; resuming is one
// code path, taken after success, failure, cancellation and, by the next
// daemon, after a crash. What a run intends is durable in the Journal before it
// happens, and between the first freeze and the last thaw the daemon writes
// nothing to any disk.
//
// Transports and stores know this package; it knows none of them.
package agent
