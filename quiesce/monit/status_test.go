package monit_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/monit"
)

func TestStatusSaysHowServicesAre(t *testing.T) {
	type states = map[string]jobs.State
	for file, want := range map[string]states{
		"5.33-running.xml":         {"a": jobs.Running, "b": jobs.Running, "nostart": jobs.Stopped},
		"5.33-stopping.xml":        {"a": jobs.Changing, "b": jobs.Changing, "nostart": jobs.Stopped},
		"5.33-stopped.xml":         {"a": jobs.Stopped, "b": jobs.Stopped, "nostart": jobs.Stopped},
		"5.33-initializing.xml":    {"a": jobs.Changing, "b": jobs.Changing, "nostart": jobs.Stopped},
		"5.33-failing.xml":         {"a": jobs.Running, "b": jobs.Running, "nostart": jobs.Failing},
		"5.2.5-stopping.xml":       {"a": jobs.Changing, "b": jobs.Running},
		"5.2.5-failed-to-stop.xml": {"a": jobs.Stopped, "b": jobs.Stopped},
		"5.2.5-initializing.xml":   {"a": jobs.Changing, "b": jobs.Failing},
	} {
		t.Run(file, func(t *testing.T) {
			got, _, err := monit.States(read(t, file), "vcap")
			must(t, err)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestStatusIsLatin1(t *testing.T) {
	got, _, err := monit.States(read(t, "5.33-running.xml"), "othér")
	must(t, err)
	if len(got) != 1 {
		t.Errorf("the group's services are %v", got)
	}
}

func TestMonitsWordsAreTold(t *testing.T) {
	for file, want := range map[string]string{
		"5.33-stopping.xml":        "monitored, stop pending, pid 17459",
		"5.2.5-failed-to-stop.xml": "not monitored, execution failed, failed to stop",
	} {
		_, words, err := monit.States(read(t, file), "vcap")
		must(t, err)
		if words["a"] != want {
			t.Errorf("of %s is said %q, want %q", file, words["a"], want)
		}
	}
}

func FuzzStatus(f *testing.F) {
	files, err := filepath.Glob("testdata/*.xml")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, file := range files {
		f.Add(read(f, filepath.Base(file)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		states, words, err := monit.States(b, "vcap")
		if err != nil && states != nil {
			t.Errorf("states %v beside an error", states)
		}
		for name := range states {
			if words[name] == "" {
				t.Errorf("nothing is said of %q", name)
			}
		}
	})
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	must(t, err)
	return b
}
