package guard_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/quiesced/quiesced/quiesce/guard"
)

func TestThawPathThawsWhoeverFroze(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "xfs")
	link := filepath.Join(b.dir, "link")
	if err := os.Symlink(mnt, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{mnt, link} {
		run(t, "fsfreeze", "-f", mnt)
		if err := guard.ThawPath(t.Context(), b.binary, path); err != nil {
			t.Errorf("ThawPath(%q): %v", path, err)
		}
		wantThawed(t, mnt)
	}
}

func TestThawPathSaysWhyNot(t *testing.T) {
	b, mnt := newBed(t), newFilesystem(t, "ext4")
	inside := filepath.Join(mnt, "inside")
	if err := os.Mkdir(inside, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path string
		want error // nil: another one
	}{
		"it is not frozen":                           {mnt, guard.ErrNotFrozen},
		"it is a directory of a mounted filesystem":  {inside, guard.ErrNotMount},
		"it is not there":                            {filepath.Join(mnt, "missing"), nil},
		"it is no directory and so no mount we know": {"/proc/self/status", nil},
	} {
		t.Run(name, func(t *testing.T) {
			err := guard.ThawPath(t.Context(), b.binary, c.path)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}
