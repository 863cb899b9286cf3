package fscheck

import (
	"context"
	"fmt"
	"os"
	"slices"
)

// enclose has what follows its arguments see a filesystem mounted, and others not. It
// runs in a mount namespace of its own.
const enclose = `mount -n -t "$1" -o "$2" "$3" "$4" || exit 125
shift 4
while [ "$1" != -- ]; do
  umount -l "$1" 2>/dev/null || ! mountpoint -q "$1" || { echo "cannot hide $1" >&2; exit 125; }
  shift
done
shift
exec "$@"`

const unshare = "unshare"

// namespace is what unshare(1) is to do for the command that follows. What is unmounted
// elsewhere is unmounted there, too, where the mounts are shared; what is mounted there
// goes with its last process.
func namespace() []string { return []string{"--mount", "--propagation", "slave", "--"} }

// Beside is a command that runs the one that follows it with the checked filesystem mounted
// read-only at a directory. Nobody else sees that mount, and it goes with the last
// process that does. Mounts that are to be hidden, none of which the directory may lie on,
// are not there for them: an absolute link in the copy must not lead to what it is a copy of.
func (r Result) Beside(dir string, hidden []string) []string {
	fstype, options := r.mount()
	mount := []string{"sh", "-c", enclose, "sh", fstype, options, r.Device, dir}
	return slices.Concat([]string{"/usr/bin/" + unshare}, namespace(), mount, hidden, []string{"--"})
}

// mount is how the filesystem is mounted read-only beside the one that it is a copy of.
func (r Result) mount() (fstype, options string) {
	const harmless = "ro,nodev,nosuid,noexec"
	if info, err := os.Stat(r.Device); err == nil && info.IsDir() {
		return "none", "bind," + harmless
	}
	switch r.Filesystem {
	case "ext2", "ext3", "ext4":
		return r.Filesystem, harmless + ",errors=remount-ro" // whatever it says of itself, such as panic
	case "xfs":
		return r.Filesystem, harmless + ",nouuid"
	}
	return r.Filesystem, harmless
}

// Mountable says whether the kernel mounts the checked filesystem beside the original.
func (r Result) Mountable(ctx context.Context) error {
	out, err := tryMount(ctx, r)
	if err == nil && out.status != 0 {
		err = out.failed()
	}
	if err != nil {
		return fmt.Errorf("cannot mount %q: %w", r.Device, err)
	}
	return nil
}

// tryMount mounts and unmounts where nobody sees it.
func tryMount(ctx context.Context, r Result) (ran, error) {
	fstype, options := r.mount()
	mount := append(namespace(), "mount", "-n", "-t", fstype, "-o", options, r.Device, os.TempDir())
	return run(ctx, unshare, mount...)
}
