// Package fscheck checks a filesystem with its own checker, and shows one to a
// program beside the filesystem that it is a copy of.
//
// What is checked is a throw-away copy, a disk that was made from a snapshot: its
// journal is replayed first, which writes to it, as mounting a restored disk would.
// Nothing is repaired beyond that, and what identifies the copy, its UUIDs, stays.
//
//	ext4    e2fsck -p replays the journal and ends what was unlinked but open;
//	        e2fsck -fn checks all metadata
//	XFS     a mount in a mount namespace of its own, with nouuid, replays the log;
//	        xfs_repair -n checks all metadata
//	btrfs   btrfs check --readonly checks all metadata and the data's checksums
//	        without a mount, which a kernel before 6.7 refuses beside the original
//
// A frozen filesystem, too, needs the replay: files that were unlinked while open are
// on its list of orphans, and XFS leaves its log as it is.
//
// Programs run with low priority, in process groups of their own, which are killed
// when the context ends, and when the caller's process does.
package fscheck
