// Package quiesce finds the filesystems of a VM's persistent disks and brings
// them to rest.
//
// A filesystem here is a superblock, not a path: bind mounts and btrfs
// subvolumes of one superblock are one Filesystem, frozen once. A Survey is one
// reading of the kernel's tables (/proc/self/mountinfo and /sys), and answers
// which superblocks lie on which disks and which of them a given path depends
// on. A Freezer starts the guard, the child process that freezes and thaws.
//
// The package opens no file on a disk that may be frozen; it only asks for the
// attributes of mount points and of the paths it is given.
package quiesce
