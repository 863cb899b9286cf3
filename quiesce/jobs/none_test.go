package jobs_test

import (
	"testing"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/jobs/jobstest"
)

func TestNone(t *testing.T) { jobstest.RunEmpty(t, jobs.None{}) }
