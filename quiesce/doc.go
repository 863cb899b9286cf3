// Package quiesce finds the filesystems of a VM's persistent disks and brings
// them to rest.
//
// A filesystem here is a superblock, not a path: bind mounts and btrfs
// subvolumes of one superblock are one Filesystem, frozen once. A Survey is one
// reading of the kernel's tables (/proc and /sys), and answers which superblocks
// lie on which disks and which of them a given path depends on. A Freezer starts
// the guard, the child process that freezes and thaws.
//
// A disk is configured by its mounts or its device, and what lies on it is all
// that is stacked upon its whole devices: [Survey.Filesystems] goes down to those
// and up again, through partitions, mapped devices, arrays, and loop images on
// its filesystems. Mounts in other mount namespaces are found through the
// processes there.
//
// The package opens no file on a disk that may be frozen; it only asks for the
// attributes of directories and links on the way to mount points and to the paths it
// is given, and of none in a mount that may never answer: network and FUSE mounts
// are known by the mount table alone. A block device that nothing in the
// daemon's mount table explains is opened exclusively, and closed at once.
package quiesce
