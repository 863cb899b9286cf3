package monit_test

import (
	"testing"

	"github.com/quiesced/quiesced/quiesce/jobs/jobstest"
	"github.com/quiesced/quiesced/quiesce/monit"
	"github.com/quiesced/quiesced/quiesce/monit/monittest"
)

func TestConformanceOfMonit(t *testing.T) { jobstest.Run(t, openReal) }

func TestConformanceOfMonitWithoutServices(t *testing.T) {
	program := "/bin/sleep 100000"
	m := start(t, t.TempDir(), monittest.Service{Name: "others", Start: "true", Program: program, Group: "others"})
	jobstest.RunEmpty(t, monit.New(monit.Config{URL: m.URL, UserFile: m.UserFile}))
}

func TestConformanceOfMonit5Dot2Dot5sDialect(t *testing.T) { jobstest.Run(t, openOld) }

func TestConformanceOfMonit5Dot2Dot5sDialectWithoutServices(t *testing.T) {
	jobstest.RunEmpty(t, openOld(t).Supervisor())
}
