// Package faults holds tests alone: daemon, guard and CPI are killed, stopped,
// terminated and starved of memory, at every boundary of a run (the matrix) and at
// random (the campaign), on real filesystems, and what must hold after each is
// asserted from outside.
//
// After each fault a dead daemon is started again, and then
//
//   - a process can write to the filesystem;
//   - there is exactly one report of the run, unless its record never became
//     durable; asked again, the request makes no second snapshot;
//   - each snapshot that the CPI made is in the catalogue under its CID, or, where
//     the CPI could not finish its answer, as unresolved; nothing else is;
//   - what is called clean was taken while no writer got through: one that writes
//     all the time keeps a log of when;
//   - a filesystem that somebody else froze stayed frozen all the while;
//   - no guard, canary, CPI or state file is left, and everything can be unmounted;
//   - the next run succeeds, and is clean.
//
// The programs are built with the tag "failpoints". A Go program that gets no
// memory ends as its runtime does then, which is what "starved" means for daemon
// and guard. A CPI is any program; there it means what a kernel does that is out
// of memory: its whole process group is killed.
package faults
