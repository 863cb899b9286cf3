// Package writeout writes out what is dirty on filesystems that are about to be
// frozen, so gently that whoever writes there hardly notices.
//
// A syncfs, and the one within FIFREEZE, hands the disk everything at once: a
// small write that has to be durable stands in the disk's queue behind hundreds
// of MiB, and on ext4 its journal commit waits for data of others as well. This
// package writes a few MiB at a time with sync_file_range, waits for each, and
// sizes the next by the time that took. So at most one chunk is ever ahead of
// anybody, whatever the disk is.
//
// The kernel does not tell which files are dirty. Tried are the files that some
// process has open or mapped, which is where databases have their dirty pages,
// and then, if much is dirty still, files that were changed no longer ago than
// the kernel leaves them dirty, as far as a walk of limited time finds them.
// cachestat(2), where the kernel has it, passes over what is clean. What is not
// found is left for the syncfs that follows.
//
// The work is done by a child process, since a filesystem that somebody else
// froze, or a dead disk, holds up whoever opens its files.
package writeout
