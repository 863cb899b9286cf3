package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/quiesced/quiesced/"

// allowedImports says which of our packages each of them may import. Imports
// point one way: a transport or a store knows the agent, never the other way.
// "…" stands for all: the programs, and what puts a daemon together for tests.
var allowedImports = map[string][]string{
	"cpi":                         {},
	"cpi/local":                   {"cpi"},
	"cpi/front":                   {"cpi", "agent", "agent/api", "agent/wire"},
	"quiesce":                     {"quiesce/guard", "quiesce/writeout"},
	"quiesce/guard":               {"quiesce/failpoint"},
	"quiesce/failpoint":           {},
	"quiesce/writeout":            {},
	"quiesce/fscheck":             {},
	"quiesce/remount":             {"quiesce", "quiesce/failpoint"},
	"quiesce/loopfs":              {},
	"quiesce/jobs":                {"quiesce/failpoint", "quiesce/jobs/processes"},
	"quiesce/jobs/processes":      {},
	"quiesce/jobs/jobstest":       {"quiesce/jobs", "quiesce/jobs/processes"},
	"quiesce/monit":               {"quiesce/jobs", "quiesce/jobs/processes", "quiesce/netclass"},
	"quiesce/monit/monittest":     {},
	"quiesce/netclass":            {},
	"quiesce/systemd":             {"quiesce/jobs", "quiesce/jobs/processes"},
	"quiesce/systemd/systemdtest": {},
	"agent":                       {"agent/retention", "quiesce", "quiesce/fscheck", "quiesce/remount", "quiesce/guard", "quiesce/failpoint", "quiesce/jobs", "quiesce/jobs/processes", "cpi"},
	"agent/faults":                {},
	"agent/schedule":              {},
	"agent/retention":             {},
	"agent/boshvm":                {},
	"agent/wire":                  {"agent", "quiesce", "quiesce/jobs", "quiesce/remount", "cpi"},
	"agent/journal":               {"agent", "agent/wire", "cpi"},
	"agent/diskcopy":              {"agent", "agent/wire"},
	"agent/audit":                 {},
	"agent/api":                   {"agent", "agent/audit", "agent/wire"},
	"agent/api/apitest":           {"…"},
	"agent/httpapi":               {"agent/api"},
	"agent/natsapi":               {"agent", "agent/api"},
	"metrics":                     {"agent", "agent/wire", "quiesce/guard"},
	"cmd/local-cpi":               {"…"},
	"cmd/quiesce-cpi":             {"…"},
	"cmd/quiesced":                {"…"},
	"cmd/quiesced-demo":           {"…"},
	"cmd/quiesced-bench":          {"…"},
	"cmd/quiesced-guard":          {"quiesce/guard", "quiesce/writeout"},
}

// confined says which of our packages may import a dependency of others; those
// that may import all of ours may where "cmd" is named. One that is not listed fails the test.
var confined = map[string][]string{
	"github.com/nats-io":            {"agent/natsapi", "cmd"},
	"go.etcd.io/bbolt":              {"agent/journal"},
	"github.com/prometheus":         {"metrics", "cmd"},
	"github.com/spf13/cobra":        {"cmd"},
	"go.yaml.in/yaml":               {"quiesce/jobs", "cmd"},
	"github.com/jedib0t/go-pretty":  {"cmd"},
	"github.com/moby/sys/mountinfo": {"agent/boshvm", "cpi/local", "quiesce", "quiesce/jobs", "quiesce/netclass", "quiesce/remount"},
	"github.com/robfig/cron":        {"agent/schedule", "cmd"},
	"github.com/coreos/go-systemd":  {"quiesce/systemd", "cmd"},
	"github.com/godbus/dbus":        {"quiesce/systemd"},
	"github.com/google/uuid":        {"agent"},
	"golang.org/x/sync":             {"cmd"},
	"golang.org/x/term":             {"cmd"},
	"golang.org/x/sys":              {"agent", "agent/diskcopy", "agent/httpapi", "cpi", "cpi/front", "cpi/local", "quiesce", "quiesce/fscheck", "quiesce/guard", "quiesce/jobs", "quiesce/jobs/processes", "quiesce/monit", "quiesce/monit/monittest", "quiesce/remount", "quiesce/writeout", "cmd"},
}

// listed is what go list says of a package.
type listed struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
}

func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Standard,Imports,Deps"}, args...)...)
	cmd.Dir = "../.."
	var failed bytes.Buffer
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cannot list packages: %v\n%s", err, &failed)
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// own is a package's path in this module, and whether it is one of ours.
func own(path string) (string, bool) { return strings.CutPrefix(path, module) }

func TestPackagesImportWhatTheTableAllows(t *testing.T) {
	for _, p := range goList(t, "./...") {
		name, _ := own(p.ImportPath)
		t.Run(name, func(t *testing.T) {
			allowed, ok := allowedImports[name]
			if !ok {
				t.Fatalf("%s is missing from the table", name)
			}
			for _, imported := range p.Imports {
				other, ours := own(imported)
				if ours && !slices.Contains(allowed, other) && !slices.Contains(allowed, "…") {
					t.Errorf("%s must not import %s", name, other)
				}
			}
		})
	}
}

func TestDependenciesStayWhereTheyAreWrapped(t *testing.T) {
	for _, p := range goList(t, "./...") {
		name, _ := own(p.ImportPath)
		t.Run(name, func(t *testing.T) {
			for _, imported := range p.Imports {
				if _, ours := own(imported); ours || !strings.Contains(strings.Split(imported, "/")[0], ".") {
					continue
				}
				if !confinedTo(t, imported, name) {
					t.Errorf("%s must not import %s", name, imported)
				}
			}
		})
	}
}

// confinedTo says whether a package of ours may import a dependency. One that
// is not in the table fails the test.
func confinedTo(t *testing.T, imported, name string) bool {
	t.Helper()
	for dependency, places := range confined {
		if imported == dependency || strings.HasPrefix(imported, dependency+"/") {
			return slices.Contains(places, name) ||
				slices.Contains(places, "cmd") && slices.Contains(allowedImports[name], "…")
		}
	}
	t.Errorf("%s, a dependency of %s, is missing from the table", imported, name)
	return true
}

// The guard has to do its work while nothing else of the daemon can, so its
// binary holds nothing that it does not need.
func TestGuardIsTheStandardLibraryAndTheKernelsInterface(t *testing.T) {
	for _, p := range goList(t, "-deps", "./cmd/quiesced-guard") {
		name, ours := own(p.ImportPath)
		switch {
		case p.Standard, strings.HasPrefix(p.ImportPath, "golang.org/x/sys/"):
		case ours && slices.Contains([]string{"quiesce/guard", "quiesce/failpoint", "quiesce/writeout", "cmd/quiesced-guard"}, name):
		default:
			t.Errorf("the guard's binary must not hold %s", p.ImportPath)
		}
	}
}

func TestProgramsHoldNothingOfTheTests(t *testing.T) {
	for _, p := range goList(t, "./cmd/...") {
		name, _ := own(p.ImportPath)
		t.Run(name, func(t *testing.T) {
			for _, helper := range []string{"agent/api/apitest", "quiesce/loopfs", "quiesce/jobs/jobstest", "quiesce/monit/monittest", "quiesce/systemd/systemdtest"} {
				if slices.Contains(p.Deps, module+helper) && !slices.Contains([]string{"cmd/quiesced-demo", "cmd/quiesced-bench"}, name) {
					t.Errorf("%s holds %s", name, helper)
				}
			}
		})
	}
}
