package local_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/cpi/local"
)

func TestOddCIDsAreRefusedByName(t *testing.T) {
	s := onExt4.store(t, t.TempDir())
	for name, cid := range map[string]string{
		"an empty one":               "",
		"this directory":             ".",
		"the parent":                 "..",
		"a hidden one":               ".tmp-x",
		"one with a slash":           "../disks/a",
		"one with a NUL":             "a\x00b",
		"one that is not UTF-8":      "a\xffb",
		"one longer than is allowed": strings.Repeat("a", 201),
	} {
		t.Run(name, func(t *testing.T) {
			_, has := s.HasDisk(cid)
			_, snapshot := s.SnapshotDisk(cid, nil)
			_, attach := s.AttachDisk(cid)
			for i, err := range []error{has, snapshot, attach, s.DetachDisk(cid), s.DeleteDisk(cid), s.DeleteSnapshot(cid),
				s.SetDiskMetadata(cid, nil), s.SwapDisks(cid, "a")} {
				if !errors.Is(err, cpi.CpiError) || !strings.Contains(err.Error(), fmt.Sprintf("%q", cid)) {
					t.Errorf("method %d: got %v", i, err)
				}
			}
		})
	}
}

func TestADiskOfNoSizeIsNotCreated(t *testing.T) {
	s := onExt4.store(t, t.TempDir())
	for _, size := range []int64{0, -1, 1 << 60} {
		if _, err := s.CreateDisk(size, nil, ""); !errors.Is(err, cpi.CpiError) {
			t.Errorf("%d: got %v", size, err)
		}
	}
}

func TestARootThatIsNoDirectoryIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{"", "relative", file, file + "/below", filepath.Join(t.TempDir(), "missing")} {
		if _, err := local.Open(root, io.Discard); !errors.Is(err, cpi.CpiError) {
			t.Errorf("%q: got %v", root, err)
		}
	}
}
