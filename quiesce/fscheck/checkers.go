package fscheck

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Bits of e2fsck's exit status.
const (
	extCorrected = 1
	extLeft      = 4
)

// checkExt replays the journal, and then checks. What preening corrects beyond that counts
// as damage: it is no more than a fully checked filesystem would have had.
func checkExt(ctx context.Context, device string) (verdict, error) {
	replay, err := run(ctx, "e2fsck", "-p", device)
	if err != nil {
		return verdict{}, err
	}
	if replay.status&(extCorrected|extLeft) != 0 {
		return verdict{output: replay.text}, nil
	}
	full, err := run(ctx, "e2fsck", "-fn", "-E", "no_optimize_extents", device)
	switch {
	case err != nil:
		return verdict{}, err
	case full.status&extLeft != 0:
		return verdict{output: full.text}, nil
	case full.status != 0:
		return verdict{}, full.failed()
	case replay.status != 0:
		return verdict{}, replay.failed()
	}
	return verdict{ok: true, output: full.text}, nil
}

// checkXFS replays the log, which the kernel alone can, and then checks. A log that
// cannot be replayed is left as it is by the check, which then finds what is in the way.
func checkXFS(ctx context.Context, device string) (verdict, error) {
	replay, err := tryMount(ctx, Result{Filesystem: "xfs", Device: device})
	if err != nil {
		return verdict{}, err
	}
	const damaged = 1
	full, err := run(ctx, "xfs_repair", "-n", device)
	switch {
	case err != nil:
		return verdict{}, err
	case full.status == damaged:
		return verdict{output: strings.TrimSpace(replay.text + "\n" + full.text)}, nil
	case full.status != 0:
		return verdict{}, full.failed()
	case replay.status != 0:
		return verdict{}, fmt.Errorf("its log could not be replayed: %w", replay.failed())
	}
	return verdict{ok: true, output: full.text}, nil
}

// checkBtrfs needs no replay: what is in the log tree is beside what it checks.
func checkBtrfs(ctx context.Context, device string) (verdict, error) {
	switch n, err := btrfsDevices(device); {
	case err != nil:
		return verdict{}, err
	case n != 1:
		return verdict{}, fmt.Errorf("its filesystem is spread over %d devices", n)
	}
	if err := forgetBtrfs(ctx, device); err != nil {
		return verdict{}, err
	}
	const damaged = 1
	full, err := run(ctx, "btrfs", "check", "--readonly", "--check-data-csum", device)
	switch {
	case err != nil:
		return verdict{}, err
	case full.status == damaged:
		return verdict{output: full.text}, nil
	case full.status != 0:
		return verdict{}, full.failed()
	}
	return verdict{ok: true, output: full.text}, nil
}

// forgetBtrfs has the kernel forget what it remembers of a device whose number the disk has
// now: it would take the copy for a part of that, and not mount it. There is mostly nothing
// to forget, which is answered as a failure.
func forgetBtrfs(ctx context.Context, device string) error {
	_, err := run(ctx, "btrfs", "device", "scan", "--forget", device)
	return err
}

// btrfsDevices is how many devices a btrfs has, by its superblock.
func btrfsDevices(device string) (uint64, error) {
	const superblock, devices = 64 << 10, 0x88
	f, err := os.Open(device)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var n [8]byte
	if _, err := f.ReadAt(n[:], superblock+devices); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(n[:]), nil
}

// readAll reads every file below a directory.
const readAll = `exec find "$1" -xdev -type f -exec cat -- {} + >/dev/null`

// checkDirectory reads all that is in a directory of a btrfs.
func checkDirectory(ctx context.Context, dir string) (Result, error) {
	r := Result{Filesystem: "btrfs", Device: dir, Tool: "reading every file"}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return r, err
	}
	if st.Type != unix.BTRFS_SUPER_MAGIC {
		return r, errors.New("it is a directory, and not on btrfs: nothing there has checksums")
	}
	all, err := run(ctx, "sh", "-c", readAll, "sh", dir)
	if err != nil {
		return r, err
	}
	r.OK, r.Output = all.status == 0, all.text
	return r, nil
}
