// Package faults holds tests alone: daemon, guard and CPI are killed, stopped,
// terminated and starved of memory, at every boundary of a run (the matrix) and at
// random (the campaign), on real filesystems, and what must hold after each is
// asserted from outside.
//
// At level stop a real monit supervises the jobs' services; at level lock jobs have
// real lock scripts, in layers. There the daemon is killed and terminated at every
// boundary from the first pre-stop to the last post-start, and killed with the state
// directory lost, or all but the services' mark; it is killed again while it undoes
// what was left; and each kind of script fails, hangs whatever it is told, succeeds
// too late, leaves a process of another session behind, and is at work while the
// daemon ends.
//
// In a hold the test is the holder: it takes the snapshot, and tells of it until
// somebody hears it, the next daemon if need be.
//
// A restore has beds of its own: a disk of local-cpi's with a service on it. The daemon is
// killed at each boundary, also while the CPI is in a call, and again while it makes good
// what was left; CPI, mount, check and service fail. Each time the disk before or the restored one is
// in its place, once and whole, the service runs on it, and the other is kept or gone.
//
// A verification's daemon is killed and terminated at each of its steps: the next one removes
// its disk, loop device and mount, and the disk that was snapshotted is as it was.
//
// After each fault of a run a dead daemon is started again, and then
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
// Where there are jobs also
//
//   - every service that ran before runs, once, and no other does, by monit's word
//     and by the processes; what was drained was started anew; a service that was not
//     monitored, or failed, is so again;
//   - every lock was released, once, unless an unlock script was at work when the
//     daemon was killed, and in the reverse order;
//   - every script was followed by those that undo it, none of our own job was run, and
//     nothing was done by a script after its end;
//   - the services' mark and the file of what is held are gone;
//   - the report of a run whose script failed names it and has what it printed.
//
// The programs are built with the tag "failpoints". A Go program that gets no
// memory ends as its runtime does then, which is what "starved" means for daemon
// and guard. A CPI is any program; there it means what a kernel does that is out
// of memory: its whole process group is killed.
package faults
