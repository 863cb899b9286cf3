package jobs_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

func marker(t *testing.T) jobs.Marker {
	t.Helper()
	return jobs.Marker{Path: filepath.Join(t.TempDir(), "stopped")}
}

func mark(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// reads checks what a marker says, twice: reading changes nothing that counts.
func reads(t *testing.T, m jobs.Marker, want jobs.Mark) {
	t.Helper()
	for range 2 {
		got, err := m.Read()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}

func TestMarkerTellsWhoStoppedTheServices(t *testing.T) {
	ours := jobs.Mark{Owner: jobs.Ours, Run: "run-1", Services: []string{"db", "router"}}
	for name, c := range map[string]struct {
		there func(*testing.T, jobs.Marker)
		want  jobs.Mark
	}{
		"nobody":       {func(*testing.T, jobs.Marker) {}, jobs.Mark{}},
		"bosh-agent":   {func(t *testing.T, m jobs.Marker) { mark(t, m.Path, "") }, jobs.Mark{Owner: jobs.Director}},
		"whoever else": {func(t *testing.T, m jobs.Marker) { mark(t, m.Path, "by hand\n") }, jobs.Mark{Owner: jobs.Director}},
		"us": {func(t *testing.T, m jobs.Marker) {
			if err := m.Claim("run-1", []string{"db", "router"}); err != nil {
				t.Fatal(err)
			}
		}, ours},
		"bosh-agent, after us": {func(t *testing.T, m jobs.Marker) {
			if err := m.Claim("run-1", nil); err != nil {
				t.Fatal(err)
			}
			mark(t, m.Path, "")
		}, jobs.Mark{Owner: jobs.Director}},
		"bosh-agent, whose mark a release that was cut off took aside": {func(t *testing.T, m jobs.Marker) {
			mark(t, m.Path+".quiesced", "")
		}, jobs.Mark{Owner: jobs.Director}},
		"nobody any more, where a release of ours was cut off": {func(t *testing.T, m jobs.Marker) {
			mark(t, m.Path+".quiesced", "quiesced run run-1\n")
		}, jobs.Mark{}},
	} {
		t.Run(name, func(t *testing.T) {
			m := marker(t)
			c.there(t, m)
			reads(t, m, c.want)
		})
	}
}

func TestMarkerOfOthersIsNeitherClaimedNorReleased(t *testing.T) {
	m := marker(t)
	mark(t, m.Path, "")
	if err := m.Claim("run-1", nil); !errors.Is(err, jobs.ErrMarked) {
		t.Errorf("claimed: %v", err)
	}
	found, err := m.Release()
	if err != nil || found.Owner != jobs.Director {
		t.Errorf("released: %v %v", found, err)
	}
	reads(t, m, jobs.Mark{Owner: jobs.Director})
}

func TestReleasedMarkerIsGone(t *testing.T) {
	m := marker(t)
	if err := m.Claim("run-1", nil); err != nil {
		t.Fatal(err)
	}
	if found, err := m.Release(); err != nil || found.Owner != jobs.Ours || found.Run != "run-1" {
		t.Errorf("released: %v %v", found, err)
	}
	reads(t, m, jobs.Mark{})
	if found, err := m.Release(); err != nil || found.Owner != jobs.Nobody {
		t.Errorf("released again: %v %v", found, err)
	}
	left, err := os.ReadDir(filepath.Dir(m.Path))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestMarkerThatCannotBeWrittenIsNoClaim(t *testing.T) {
	m := jobs.Marker{Path: filepath.Join(t.TempDir(), "missing", "stopped")}
	if err := m.Claim("run-1", nil); err == nil || errors.Is(err, jobs.ErrMarked) {
		t.Errorf("got %v", err)
	}
}
