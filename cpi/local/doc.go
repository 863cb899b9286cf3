// Package local is a CPI for one machine. Its disks are image files, or subvolumes of
// btrfs, and a snapshot of a disk is a clone of that.
//
// A CPI gets no arguments and a bare environment, so the request says where things lie:
// the key root of its context is the absolute path of a directory that exists.
//
//	root/disks/CID.img       a disk: an image, or a symbolic link to it
//	root/disks/CID           a disk: a subvolume, or a symbolic link to it
//	root/disks/CID.json      what is known of the disk; may be missing
//	root/snapshots/CID.img   a snapshot of an image, read-only
//	root/snapshots/CID       a snapshot of a subvolume, read-only
//	root/snapshots/CID.json  its disk, time, size and method, and the metadata given
//
// What lies there says which of its two drivers serves a CID. A new disk is an image
// unless the cloud property driver, or else the key driver of the context, is btrfs.
// What lies elsewhere becomes a disk by a symbolic link in disks. It is never deleted:
// delete_disk removes the link.
//
// # Images
//
// A snapshot is a reflink where the filesystem of the image can share blocks with that
// of the root (XFS, btrfs), and else a copy without the holes, which takes as long as
// the data is big. Which it was is in the snapshot's sidecar and on standard error.
// attach_disk answers with a loop device, the image's own if it has one; detach_disk
// lets it go.
//
// # Subvolumes
//
// The root lies on btrfs. A disk is as large as the filesystem, whatever size was asked
// for. attach_disk answers with the directory: where a subvolume is mounted beside that
// is the operator's business, and a subvolume that is mounted anywhere counts as
// attached. One with other subvolumes within it cannot be snapshotted, since those would
// be missing.
//
// The kernel makes the snapshot consistent by itself, and does so on no filesystem that
// is frozen: the call would wait for the thaw. A daemon whose disks these are is
// configured with cpi.freezes_itself.
//
// # What holds at every moment
//
// The data's name is what makes a CID exist. It gets it last, when all is durable, and
// loses it last: after a crash at any moment a CID is there in full or not at all, or a
// deletion can be repeated. What a killed process left under a temporary name is removed
// by the next call that changes anything in that directory.
//
// swap_disks, which BOSH does not know, exchanges the data of two disks by one rename
// that exchanges. Sidecars stay where they are: they tell of the CID.
package local
