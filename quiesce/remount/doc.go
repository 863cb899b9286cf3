// Package remount takes a disk's filesystem out of the tree of directories and puts
// another in its place: what is mounted where, in which order that is unmounted, who
// keeps it from that, and how it is mounted again.
//
// A disk here is what Of finds at a mount point: one superblock on a block device, with
// all its mounts, bind mounts among them; or, on btrfs, a subvolume that is bound to
// mount points. Mounts are made and unmade in the mount namespace of the caller, from
// where they spread as the propagation of their mount points says.
//
// mount(8) and umount(8) do the work, in processes of their own: one that is held up by
// a dead device holds up nobody else.
package remount
