package remount_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/loopfs"
	"github.com/quiesced/quiesced/quiesce/remount"
)

// The device does nothing as long as the filesystem with its image is frozen.
func TestAMountThatTheKernelHoldsUpIsWaitedForNoLongerThanItMayTake(t *testing.T) {
	host, err := loopfs.Make(t.TempDir(), "host", "ext4", 64<<20)
	must(t, err)
	t.Cleanup(func() { must(t, host.Close()) })
	image, at := filepath.Join(host.Mount, "disk.img"), filepath.Join(t.TempDir(), "store")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 16<<20))
	must(t, loopfs.Format(image, "ext4"))
	must(t, os.Mkdir(at, 0o755))
	device := attach(t, image)
	disk, err := remount.At(device, []remount.Mount{{Point: at, Root: "/", Type: "ext4", Options: "rw"}})
	must(t, err)
	thaw, err := loopfs.ThawAfter(host.Mount, time.Minute)
	must(t, err)
	t.Cleanup(func() { awaitUnmounted(t, disk) })
	t.Cleanup(thaw)
	command(t, "fsfreeze", "-f", host.Mount)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, errors.New("it takes too long"))
	defer cancel()
	err = disk.Mount(ctx)
	if err == nil || !strings.Contains(err.Error(), "held up in the kernel: it takes too long") {
		t.Errorf("got %v", err)
	}
	if now := mountsBelow(t, at); len(now) > 0 {
		t.Errorf("it was not held up: %v", now)
	}
}

// awaitUnmounted unmounts what is mounted only after it was given up.
func awaitUnmounted(t *testing.T, disk *remount.Disk) {
	for end := time.Now().Add(time.Minute); ; {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := disk.Unmount(ctx)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}
