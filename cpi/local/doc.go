// Package local is a CPI for one machine: its disks are image files, and a
// snapshot of a disk is a clone of its file.
//
// A CPI gets no arguments and a bare environment, so the request says where the
// files lie: the key root of its context is the absolute path of a directory
// that exists.
//
//	root/disks/CID.img       the disk, or a symbolic link to it
//	root/disks/CID.json      its metadata; may be missing
//	root/snapshots/CID.img   the snapshot, read-only
//	root/snapshots/CID.json  its disk, time, size and method, and the metadata given
//
// An image that lies elsewhere becomes a disk by a symbolic link in disks. Such
// an image is never deleted: delete_disk removes the link.
//
// A snapshot is a reflink where the filesystem of the image can share blocks
// with that of the root (XFS, btrfs), and else a copy without the holes, which
// takes as long as the data is big. Which it was is in the snapshot's metadata
// and on standard error.
//
// The .img file is what makes a CID exist. It gets its name last, when all of
// it is durable, and loses it last: after a crash at any moment a CID is there
// in full or not at all, or a deletion can be repeated. What a killed process
// left under a temporary name is removed by the next call that changes
// anything.
package local
