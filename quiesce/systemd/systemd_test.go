package systemd_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/quiesced/quiesced/quiesce/jobs/jobstest"
	"github.com/quiesced/quiesced/quiesce/systemd/systemdtest"
)

func TestMain(m *testing.M) {
	if file := os.Getenv(roleEnv); file != "" {
		if err := beDaemon(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The two tests each boot a machine, and run at the same time: they mostly wait.

func TestConformance(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := bed{machine: &machine{systemdtest.Boot(t, dir, func(string) {})}, dir: dir}
	b.define(t, map[string]string{"suite.target": ""})
	jobstest.Run(t, func(*testing.T) jobstest.Bed { return b })
}

func TestSystemd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := &machine{systemdtest.Boot(t, dir, func(string) {})}
	for _, c := range []struct {
		name string
		play func(*testing.T, *machine)
	}{
		{"tells masked, failed and missing units apart", tellsMaskedFailedAndMissingApart},
		{"leaves alone what runs and is masked", leavesAloneWhatIsMaskedAndRuns},
		{"keeps sockets, timers and paths from starting what is stopped", keepsActivationAway},
		{"selects by target", selectsByTarget},
		{"selects by slice", selectsBySlice},
		{"waits until services are ready", waitsUntilReady},
		{"copes with a service that does not stop", copesWithWhatDoesNotStop},
		{"outlives restarts of systemd and of the bus", outlivesRestarts},
	} {
		t.Run(c.name, func(t *testing.T) { c.play(t, m) })
	}
	t.Run("works inside its own unit", func(t *testing.T) { worksInsideItsOwnUnit(t, m, dir) })
	t.Run("outlives a restart of systemd without a bus", func(t *testing.T) { outlivesRestartsWithoutBus(t, m, dir) })
}
