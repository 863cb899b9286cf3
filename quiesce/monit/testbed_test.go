package monit_test

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/jobs/jobstest"
	"github.com/quiesced/quiesced/quiesce/monit"
	"github.com/quiesced/quiesced/quiesce/monit/monittest"
)

// Nearly all of the tests' time is waiting for monit's rounds, so more of them run at once
// than there are processors.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// realBed is a real monit that starts when services are defined.
type realBed struct {
	dir   string
	rules string // of every service
	monit *monittest.Monit
}

func openReal(t *testing.T) jobstest.Bed {
	t.Parallel()
	return &realBed{dir: t.TempDir()}
}

func (b *realBed) Dir() string { return b.dir }

func (b *realBed) Define(t testing.TB, services ...jobstest.Service) {
	t.Helper()
	var all []monittest.Service
	for _, s := range services {
		program, err := s.Install(b.dir)
		must(t, err)
		defined := monittest.Service{Name: s.Name, Program: program, Rules: b.rules}
		if s.IgnoresStop || s.Broken {
			defined.Timeout = time.Second
		}
		all = append(all, defined)
	}
	b.monit = start(t, b.dir, all...)
}

func (b *realBed) Supervisor() jobs.Supervisor {
	return monit.New(monit.Config{URL: b.monit.URL, UserFile: b.monit.UserFile})
}

func (b *realBed) Cut(t testing.TB) {
	t.Helper()
	must(t, b.monit.Kill())
}

func (b *realBed) Restore(t testing.TB) {
	t.Helper()
	must(t, b.monit.Begin())
}

// start has a real monit for as long as the test runs.
func start(t testing.TB, dir string, services ...monittest.Service) *monittest.Monit {
	t.Helper()
	m, err := monittest.Start(dir, services...)
	must(t, err)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
