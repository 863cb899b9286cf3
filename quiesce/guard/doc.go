// Package guard freezes filesystems through a child process, the guard, which
// thaws them whatever happens to its parent.
//
// # Guarantees
//
//   - A filesystem that the guard froze is thawed when asked ('t'), at the
//     deadline, when the guard's pipe ends, when no byte came through the pipe
//     for the heartbeat limit, and on every signal that can be caught. The
//     deadline is measured on CLOCK_BOOTTIME from before the first FIFREEZE.
//   - A thaw by somebody else is noticed within milliseconds: the canary, a
//     process beside the guard, waits on the freeze in the kernel and wakes.
//     The guard then thaws the others and issues no FITHAW there: what is
//     frozen after that is not ours.
//   - One freeze gets one thaw that counts. FITHAW while a FIFREEZE is under
//     way answers EINVAL and the freeze then completes without an owner, so the
//     guard thaws a filesystem once the FIFREEZE has returned; whoever takes
//     over from a guard first kills it and waits until its pidfd fires.
//   - Freezes of others are left alone: EBUSY is a failure ([ErrFrozenByOther]).
//   - The mount that was surveyed is frozen, or nothing: the opened
//     descriptor's st_dev and mount id are compared with the survey's, so that
//     an unmount in between never freezes the parent filesystem.
//   - A freeze of ours is on record, in the state file, from before the
//     FIFREEZE until after the FITHAW. [Recover] thaws what is on record and
//     needs nothing else; a superblock that is no longer at its path is looked
//     for in every process's mounts and descriptors.
//   - What the kernel holds up, FIFREEZE or FITHAW, is told as stuck ([ErrStuck])
//     seconds after the deadline, and thawed as soon as the kernel lets it.
//   - RCU is expedited from before the first FIFREEZE until the last has
//     returned, if it was not, and is as it was after that; a recovery sees to
//     it where the guard died. It makes FIFREEZE wait for a tenth of the time.
//   - The guard writes to no disk and logs nothing. After "ready" it starts no
//     thread, and its memory stays locked as it is touched.
//
// # Protocol
//
// Descriptor 0 brings commands, one byte each:
//
//	s  write out: syncfs of every filesystem, in parallel
//	f  freeze: rank after rank from the lowest, in parallel within a rank
//	t  thaw what is frozen, and end
//	.  heartbeat; from 'f' on one byte of any kind is due per limit
//
// Any other byte, 's' or 'f' while a command is under way, and either of them
// after 'f', break the protocol: the guard thaws and exits with status 2. The
// end of the pipe is the parent's death.
//
// Descriptor 1 takes answers, one line each; details are in the state file:
//
//	warning TEXT  a protection is missing (memory not locked, …); before ready
//	ready         mounts are open and checked, all threads are there
//	synced        every syncfs succeeded
//	unsynced      at least one did not: errno in its cell; the guard goes on
//	frozen        every filesystem is frozen
//	thawed        all that was frozen is thawed; the last answer
//	failed [TEXT] could not start, freeze or thaw; the last answer
//
// Descriptor 3 is the state file, 4 the guard's own executable, through which
// it was run, 5 an eventfd that the canary opens when it woke. The exit status is
// 0 after "thawed", 1 after "failed", 2 for a broken protocol, 3 for a state file
// that cannot be used.
//
// Run as "quiesced-guard canary", with descriptors 3, 4 and 5 as above, it is
// the canary. It answers "ready" or "failed TEXT", goes to wait on each
// filesystem once its cell says frozen, and ends when descriptor 0 has ended
// and nothing is frozen. It waits in rmdir of a name that is too long to exist.
//
// Run as "quiesced-guard thaw", with descriptor 3 as above, it thaws what a
// dead guard left and ends; "quiesced-guard thaw held" does so while the
// guard, killed, is still held up in the kernel. Descriptor 5 is then the
// guard's pidfd.
//
// Run as "quiesced-guard thaw-path PATH", without a state file, it issues one
// FITHAW at a mount point that a person named, whoever froze it. It answers
// "thawed", "unfrozen" (there was nothing to thaw), "unmounted" (no mount point)
// or "failed TEXT". Where FITHAW is held up it stays until that returns.
//
// # State file
//
// guard-RUNID.state, mode 0600, in a directory on tmpfs, which vanishes at a
// reboot as a freeze does. It appears under its name when complete. Numbers are
// little-endian in the descriptor section, which never changes:
//
//	  0  magic "QSCGUARD"
//	  8  u32 version, 1
//	 12  u32 number of filesystems, 1 to 256
//	 16  u32 offset of the cells, a multiple of 4096
//	 20  u32 CRC-32 (IEEE) of the bytes before the cells, this field taken as 0
//	 24  boot id, 36 bytes as in /proc/sys/kernel/random/boot_id, then 4 zeros
//	 64  u64 deadline in ms          72  u64 heartbeat limit in ms
//	 80  u64 creator's pid           88  u64 creator's start time in clock ticks
//	 96  run id, 64 bytes, filled up with zeros
//	160  per filesystem: u32 major, u32 minor (of st_dev), u64 mount id, u32 rank,
//	     u16 length of type, u16 length of path, type, path
//	     zeros up to the cells
//
// Cells are 64-bit words in the machine's byte order, each written atomically,
// in blocks of 64 bytes; words not named are zero. First the guard's block:
//
//	0  pid, 0 until the guard runs   8  start time in clock ticks
//	16 cause of the thaw, 0 until it begins
//	24 1 while /sys/kernel/rcu_expedited is 1 because of us
//
// then one block per filesystem, in the order of the descriptor section:
//
//	0  state, with errno << 32
//	8  when FIFREEZE was issued      16 when it had returned
//	24 when FITHAW had returned      32 when the canary woke
//	40 when the canary went to wait
//
// Times are CLOCK_BOOTTIME in ns, 0 when it has not happened. The guard writes
// the cells; after its death the "thaw" run does. The last two are the canary's.
// A recovery holds an flock on the file; guard and canary have file descriptions
// of their own, and hold none.
package guard
