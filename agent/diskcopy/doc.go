// Package diskcopy keeps copies of the catalogue on the persistent disks: MOUNT/quiesced/snapshots.json,
// in a directory that is root's alone, replaced as a whole and durably.
//
// Whoever touches a filesystem that is frozen sleeps in the kernel until it is thawed, and
// no signal ends him. So each copy is read and written by a child process, Main, within a
// limit; one that does not end when it is killed is remembered, and Stuck tells of it.
package diskcopy
