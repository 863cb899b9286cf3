package jobstest

import (
	"testing"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// cases of the suite. Names of services are the case's own.
var cases = []struct {
	name string
	play func(*testing.T, Bed)
}{
	{"services that run are stopped", stops},
	{"services that were stopped are started", starts},
	{"what is as asked for already is left alone", leavesAlone},
	{"a service that is slow to stop is waited for", waitsForSlow},
	{"children are listed, and waited for when they outlive their parent", waitsForChildren},
	{"a service that does not stop is an error and others are stopped", doesNotStop},
	{"a service that does not start is an error and others are started", doesNotStart},
	{"a service that was killed before it was stopped stays down", diesBeforeStop},
	{"a service that is killed while it stops is stopped", diesDuringStop},
	{"a service that was killed is started", diesBeforeStart},
	{"a service that ends is started again unless it is not monitored", restartsItself},
	{"a service is as before after Unmonitor and Monitor", unmonitorsAndMonitors},
	{"a service that is not monitored is stopped and started", stopsUnmonitored},
	{"a service that nobody knows is an error and others are served", unknownService},
	{"many services are stopped and started at once", many},
	{"two stop the same service at once", stopsTwice},
	{"a supervisor that is gone is an error and services go on", supervisorGone},
	{"a supervisor that comes back is asked again", supervisorComesBack},
	{"a supervisor that is restarted while a service stops", restartedDuringStop},
	{"a supervisor that is restarted while a service starts", restartedDuringStart},
}

// Run plays every case on the bed that open returns, which may call t.Parallel.
func Run(t *testing.T, open func(*testing.T) Bed) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.play(t, open(t)) })
	}
}

// RunEmpty plays what holds for a supervisor that answers and has no services.
func RunEmpty(t *testing.T, sup jobs.Supervisor) {
	ctx, names := t.Context(), []string{"nobody's"}
	if got, err := sup.Services(ctx); err != nil || len(got) != 0 {
		t.Errorf("services are %v, %v, want none", got, err)
	}
	for _, err := range []error{sup.Stop(ctx, nil, nil), sup.Start(ctx, nil, nil), sup.Monitor(ctx, nil), sup.Unmonitor(ctx, nil)} {
		must(t, err)
	}
	failed(t, sup.Stop(ctx, []jobs.Service{{Name: names[0]}}, nil), "stop", jobs.ErrNoService, names...)
	failed(t, sup.Start(ctx, names, nil), "start", jobs.ErrNoService, names...)
	failed(t, sup.Monitor(ctx, names), "monitor", jobs.ErrNoService, names...)
	failed(t, sup.Unmonitor(ctx, names), "unmonitor", jobs.ErrNoService, names...)
}
