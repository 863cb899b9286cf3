// Package front stands before a director's CPI and has the VM at rest while a
// snapshot of one of its disks is taken.
//
// Every method but snapshot_disk goes to the real CPI by execve: the same bytes on
// standard input, the same environment and pipes, and nothing in between. For a
// snapshot_disk the real CPI is started and given half of its request, so that it
// loads; then comes a hold at the daemon of the disk's VM, the other half within it,
// and the CPI's answer, unchanged.
//
// What is kept to:
//
//   - No byte of ours is added to standard output: it is the real CPI's, or an answer
//     in its place when the CPI was not called.
//   - A snapshot that exists is told to the director, whatever became of the hold.
//   - While a hold lasts nothing waits for whoever reads our standard error: it may be
//     a director whose log lies on the filesystem that is frozen.
//   - Nothing is written to any disk.
//   - Killed at any instant, it leaves the VM to the lease. The real CPI then finds
//     its pipes closed, as it would if a director died.
package front
