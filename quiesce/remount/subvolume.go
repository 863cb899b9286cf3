package remount

import (
	"encoding/hex"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// subvolumeInfo is the kernel's struct btrfs_ioctl_get_subvol_info_args, as far as it is
// needed here.
type subvolumeInfo struct {
	_    [8 + 256 + 8 + 8 + 8 + 8]byte // id, name, parent, directory, generation, flags
	uuid [16]byte
	_    [504 - 312]byte
}

// getSubvolumeInfo is BTRFS_IOC_GET_SUBVOL_INFO: _IOR(0x94, 60, 504 bytes).
const getSubvolumeInfo = 2<<30 | unsafe.Sizeof(subvolumeInfo{})<<16 | 0x94<<8 | 60

// subvolumeID is the id of a btrfs subvolume, which no other has and which stays its own
// wherever it is moved.
func subvolumeID(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	if st, err := f.Stat(); err != nil || !st.IsDir() {
		return "", fmt.Errorf("%q is no subvolume", path)
	}
	var info subvolumeInfo
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), getSubvolumeInfo, uintptr(unsafe.Pointer(&info)))
	if errno != 0 {
		return "", fmt.Errorf("cannot read the id of %q: %w", path, errno)
	}
	return hex.EncodeToString(info.uuid[:]), nil
}
