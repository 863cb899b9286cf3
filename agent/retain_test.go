package agent_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/journal"
	"github.com/quiesced/quiesced/agent/retention"
)

// keep is a policy for all.
func keep(p retention.Policy) func(*agent.Settings) {
	return func(s *agent.Settings) { s.Keep = retention.Policies{General: p} }
}

// filled puts snapshots into the catalogue that the daemon will find.
func filled(t testing.TB, all ...agent.Snapshot) func(*agent.Settings) {
	return func(s *agent.Settings) {
		t.Helper()
		j, err := journal.Open(s.StateDir)
		if err == nil {
			err = errors.Join(j.Write(agent.Change{Snapshots: all}), j.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// aged are snapshots of as many days, the oldest first: snap-old-0 …
func aged(days int) []agent.Snapshot {
	var all []agent.Snapshot
	for i := range days {
		all = append(all, agent.Snapshot{
			CID: fmt.Sprintf("snap-old-%d", i), DiskCID: apitest.DiskCID, State: agent.SnapshotKnown, Trigger: agent.TriggerManual,
			RunID: fmt.Sprintf("run-old-%d", i), Created: time.Now().Add(-time.Duration(days-i) * 24 * time.Hour),
		})
	}
	return all
}

// serve has the daemon's loop run until the test ends.
func serve(t testing.TB, d *apitest.Daemon) {
	t.Helper()
	var loop sync.WaitGroup
	loop.Go(func() { d.Agent.Run(t.Context()) }) // which ends before the cleanup
	t.Cleanup(loop.Wait)
}

// takeOne takes a snapshot and waits for the report.
func takeOne(t testing.TB, d *apitest.Daemon, r agent.Request) agent.Report {
	t.Helper()
	run, err := d.Agent.Take(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	<-run.Done()
	report, _ := run.Report()
	return report
}

// cids is the catalogue, oldest first.
func cids(t testing.TB, d *apitest.Daemon) []string {
	t.Helper()
	all, err := d.Agent.Snapshots()
	if err != nil {
		t.Fatal(err)
	}
	found := []string{}
	for _, s := range all {
		found = append(found, s.CID)
	}
	return found
}

// verdicts are what became of each snapshot: "snap-1 deleted".
func verdicts(r agent.Retention) []string {
	var all []string
	for _, one := range r.Snapshots {
		all = append(all, one.Snapshot.CID+" "+string(one.Verdict))
	}
	return all
}

func apply(t testing.TB, d *apitest.Daemon) agent.Retention {
	t.Helper()
	r, err := d.Agent.ApplyRetention(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRetentionIsAppliedAfterEachSuccess(t *testing.T) {
	d := apitest.Start(t, keep(retention.Policy{Last: 2}))
	serve(t, d)
	for i := range 4 {
		takeOne(t, d, agent.Request{})
		apitest.Eventually(t, "the last two are left", func() bool { return len(cids(t, d)) == min(i+1, 2) })
	}
	if left := cids(t, d); !slices.Equal(left, []string{"snap-3", "snap-4"}) {
		t.Errorf("left are %q", left)
	}
	if calls := d.Calls(t, "delete_snapshot"); len(calls) != 2 || !strings.Contains(calls[0], `"snap-1"`) || !strings.Contains(calls[1], `"snap-2"`) {
		t.Errorf("the CPI got %q", calls)
	}
	apitest.Eventually(t, "it is counted", func() bool {
		s, err := d.Agent.Status()
		return err == nil && s.Retention.Deleted == 2 && s.Retention.Failed == 0 && !s.Retention.Last.IsZero()
	})
}

func TestRetentionIsNotAppliedAfterAFailure(t *testing.T) {
	d := apitest.Start(t, keep(retention.Policy{Last: 1}), filled(t, aged(3)...))
	serve(t, d)
	d.Answer(t, "snapshot_disk", `{"result":null,"error":{"type":"Bosh::Clouds::CloudError","message":"no quota left","ok_to_retry":false},"log":""}`)
	if r := takeOne(t, d, agent.Request{}); r.Outcome != agent.OutcomeFailed {
		t.Fatalf("the run %s", r.Outcome)
	}
	d.Answer(t, "snapshot_disk", "")
	time.Sleep(100 * time.Millisecond)
	if got := cids(t, d); len(got) != 3 {
		t.Errorf("left are %q", got)
	}
}

// Each snapshot would go by the policy, but for what it is.
func TestWhatRetentionLeavesAlone(t *testing.T) {
	verified := func(ok bool) *agent.Verification { return &agent.Verification{Time: time.Now(), OK: ok} }
	all := aged(9)
	for i, change := range []func(*agent.Snapshot){
		func(*agent.Snapshot) {},
		func(s *agent.Snapshot) { s.Clean = true },
		func(s *agent.Snapshot) { s.Clean, s.Verified = true, verified(true) }, // the newest clean one
		func(s *agent.Snapshot) { s.Clean, s.Verified = true, verified(false) },
		func(s *agent.Snapshot) { s.Clean, s.Held, s.Trigger = true, true, agent.TriggerDirector },
		func(s *agent.Snapshot) { s.CID, s.State = "", agent.SnapshotUnresolved },
		func(s *agent.Snapshot) { s.Clean, s.State = true, agent.SnapshotDeleting },
		func(s *agent.Snapshot) { s.Clean, s.RunID = true, "" },
		func(*agent.Snapshot) {}, // the newest one
	} {
		change(&all[i])
	}
	d := apitest.Start(t, keep(retention.Policy{Last: 1}), filled(t, all...))
	planned, err := d.Agent.PlanRetention()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, one := range planned.Snapshots {
		got = append(got, fmt.Sprintf("%s %s: %s", one.Snapshot.CID, one.Verdict, one.Why))
	}
	want := []string{
		"snap-old-0 goes: no count keeps it",
		"snap-old-1 goes: no count keeps it",
		"snap-old-2 stays: the newest clean one",
		"snap-old-3 goes: no count keeps it",
		"snap-old-4 stays: taken in a hold: the director's database has it",
		" stays: unresolved: nobody knows whether it is there",
		"snap-old-6 stays: half deleted: that is tried again",
		"snap-old-7 stays: no run of this daemon took it",
		"snap-old-8 stays: among the last 1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if calls := d.Calls(t, "delete_snapshot"); len(calls) > 0 {
		t.Errorf("a dry run has the CPI do %q", calls)
	}
	if diff := cmp.Diff([]string{"snap-old-0 deleted", "snap-old-1 deleted", "snap-old-3 deleted"}, verdicts(apply(t, d))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRetentionDoesNothing(t *testing.T) {
	policy := retention.Policy{Last: 1}
	for name, test := range map[string]struct {
		settings []func(*agent.Settings)
		noCPI    bool
		want     string
	}{
		"without a policy":             {nil, false, "no policy is configured (keep): all snapshots stay"},
		"while snapshots are disabled": {[]func(*agent.Settings){keep(policy), func(s *agent.Settings) { s.Enabled = false }}, false, "snapshots are disabled: nothing is deleted"},
		"without a CPI":                {[]func(*agent.Settings){keep(policy)}, true, "no CPI is configured (cpi.path): nothing is deleted"},
	} {
		t.Run(name, func(t *testing.T) {
			d := apitest.Start(t, append(test.settings, filled(t, aged(3)...))...)
			if test.noCPI {
				d.Agent.CPI = nil
			}
			if r := apply(t, d); r.Note != test.want || len(r.Snapshots) > 0 {
				t.Errorf("it did %+v", r)
			}
			if planned, err := d.Agent.PlanRetention(); err != nil || planned.Note != test.want || len(planned.Snapshots) != 3 {
				t.Errorf("planned is %+v, %v", planned, err)
			}
			if calls := d.Calls(t, "delete_snapshot"); len(calls) > 0 {
				t.Errorf("the CPI got %q", calls)
			}
		})
	}
}

func TestRetentionIsBusyWhileARunHasTheVM(t *testing.T) {
	d := apitest.Start(t, keep(retention.Policy{Last: 1}), filled(t, aged(3)...))
	serve(t, d)
	d.Hold(t, "snapshot_disk")
	run, err := d.Agent.Take(t.Context(), agent.Request{ID: "run-1"})
	if err != nil {
		t.Fatal(err)
	}
	d.AwaitCall(t, "snapshot_disk", 1)
	if _, err := d.Agent.ApplyRetention(t.Context()); !errors.As(err, new(*agent.BusyError)) || !strings.Contains(err.Error(), "run run-1") {
		t.Errorf("by hand it is %v", err)
	}
	d.Agent.RetainSoon()
	time.Sleep(100 * time.Millisecond)
	if calls := d.Calls(t, "delete_snapshot"); len(calls) > 0 {
		t.Errorf("beside the run the CPI got %q", calls)
	}
	d.Release(t, "snapshot_disk")
	<-run.Done()
	apitest.Eventually(t, "it is applied after the run", func() bool { return len(cids(t, d)) == 1 })
}

func TestRetentionMakesWayForARunAndGoesOnAfterIt(t *testing.T) {
	d := apitest.Start(t, keep(retention.Policy{Last: 1}), filled(t, aged(4)...))
	serve(t, d)
	d.Hold(t, "delete_snapshot")
	d.Hold(t, "snapshot_disk")
	var r agent.Retention
	var applying sync.WaitGroup
	applying.Go(func() { r = apply(t, d) })
	d.AwaitCall(t, "delete_snapshot", 1)
	run, err := d.Agent.Take(t.Context(), agent.Request{})
	if err != nil {
		t.Fatalf("the run is not begun: %v", err)
	}
	d.AwaitCall(t, "snapshot_disk", 1)
	applying.Wait()
	if diff := cmp.Diff([]string{"snap-old-0 goes", "snap-old-1 goes", "snap-old-2 goes"}, verdicts(r)); diff != "" || r.Note != "other work wanted the VM: the rest goes later" {
		t.Errorf("it came to %q (-want +got):\n%s", r.Note, diff)
	}
	d.Release(t, "delete_snapshot")
	if n := len(d.Calls(t, "delete_snapshot")); n != 1 {
		t.Errorf("beside the run the CPI got %d deletions", n)
	}
	d.Release(t, "snapshot_disk")
	<-run.Done()
	apitest.Eventually(t, "the rest goes after the run", func() bool { return slices.Equal(cids(t, d), []string{"snap-old-0", "snap-1"}) })
	if one := snapshots(t, d.Agent)["snap-old-0"]; one.State != agent.SnapshotDeleting { // and that is tried again
		t.Errorf("what was being deleted is %s", one.State)
	}
	if s, err := d.Agent.Status(); err != nil || s.Retention.Failed != 0 {
		t.Errorf("it is counted as %+v, %v", s.Retention, err)
	}
}

func TestRetentionMakesWayForADeletionByHand(t *testing.T) {
	d := apitest.Start(t, keep(retention.Policy{Last: 2}), filled(t, aged(4)...))
	d.Hold(t, "delete_snapshot")
	var applying sync.WaitGroup
	applying.Go(func() { apply(t, d) })
	d.AwaitCall(t, "delete_snapshot", 1)
	var deleting sync.WaitGroup
	deleting.Go(func() {
		if _, err := d.Agent.Delete(t.Context(), "snap-old-3"); err != nil {
			t.Errorf("a deletion by hand: %v", err)
		}
	})
	applying.Wait()
	d.Release(t, "delete_snapshot")
	deleting.Wait()
	if r := apply(t, d); len(r.Snapshots) > 0 || !slices.Equal(cids(t, d), []string{"snap-old-0", "snap-old-1", "snap-old-2"}) {
		t.Errorf("what stays is not decided anew: %q, left are %q", verdicts(r), cids(t, d))
	}
}

func TestDeletionThatFailsIsCountedAndTheRestGoesOn(t *testing.T) {
	d := apitest.Start(t, keep(retention.Policy{Last: 1}), filled(t, aged(3)...))
	d.Answer(t, "delete_snapshot", `{"result":null,"error":{"type":"Bosh::Clouds::CloudError","message":"try later","ok_to_retry":true},"log":""}`)
	r := apply(t, d)
	if diff := cmp.Diff([]string{"snap-old-0 failed", "snap-old-1 failed"}, verdicts(r)); diff != "" || !strings.Contains(r.Snapshots[0].Error, "try later") {
		t.Errorf("it came to %+v (-want +got):\n%s", r, diff)
	}
	s, err := d.Agent.Status()
	if err != nil || s.Retention.Failed != 2 || s.Retention.Deleted != 0 || !s.Retention.Last.IsZero() {
		t.Errorf("it is counted as %+v, %v", s.Retention, err)
	}
	if one := snapshots(t, d.Agent)["snap-old-0"]; one.State != agent.SnapshotDeleting {
		t.Errorf("what failed is %s", one.State)
	}
}

func TestAfterThreeFailuresTheRestIsLeft(t *testing.T) {
	d := apitest.Start(t, keep(retention.Policy{Last: 1}), filled(t, aged(6)...))
	d.Answer(t, "delete_snapshot", `{"result":null,"error":{"type":"Bosh::Clouds::CloudError","message":"no credentials","ok_to_retry":false},"log":""}`)
	r := apply(t, d)
	want := []string{"snap-old-0 failed", "snap-old-1 failed", "snap-old-2 failed", "snap-old-3 goes", "snap-old-4 goes"}
	if diff := cmp.Diff(want, verdicts(r)); diff != "" || r.Note != "3 deletions failed: the rest goes later" {
		t.Errorf("it came to %q (-want +got):\n%s", r.Note, diff)
	}
}

func TestSnapshotThatIsBeingUsedGoesLater(t *testing.T) {
	d := apitest.Start(t, keep(retention.Policy{Last: 1}), filled(t, aged(3)...))
	free, err := d.Agent.Use("snap-old-0", "verify snap-old-0")
	if err != nil {
		t.Fatal(err)
	}
	r := apply(t, d)
	if diff := cmp.Diff([]string{"snap-old-0 goes", "snap-old-1 deleted"}, verdicts(r)); diff != "" || !strings.Contains(r.Snapshots[0].Error, "busy with verify") {
		t.Errorf("it came to %+v (-want +got):\n%s", r, diff)
	}
	free()
	if diff := cmp.Diff([]string{"snap-old-0 deleted"}, verdicts(apply(t, d))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A clean snapshot is found damaged while an older one is deleted. The next older clean
// one, which was to go, is the newest clean one then.
func TestSnapshotThatIsFoundDamagedMeanwhileLeavesItsPlaceToAnother(t *testing.T) {
	all := aged(4)
	all[1].Clean, all[2].Clean = true, true
	d := apitest.Start(t, keep(retention.Policy{Last: 1}), filled(t, all...))
	d.Hold(t, "delete_snapshot")
	var r agent.Retention
	var applying sync.WaitGroup
	applying.Go(func() { r = apply(t, d) })
	d.AwaitCall(t, "delete_snapshot", 1)
	if err := d.Agent.SetVerified("snap-old-2", agent.Verification{Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	d.Release(t, "delete_snapshot")
	applying.Wait()
	if diff := cmp.Diff([]string{"snap-old-0 deleted", "snap-old-2 deleted"}, verdicts(r)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestDaemonThatStopsLeavesTheRest(t *testing.T) {
	d := apitest.Start(t, keep(retention.Policy{Last: 1}), filled(t, aged(4)...))
	d.Hold(t, "delete_snapshot")
	var applying sync.WaitGroup
	applying.Go(func() { _, _ = d.Agent.ApplyRetention(t.Context()) })
	d.AwaitCall(t, "delete_snapshot", 1)
	d.Restart(t)
	applying.Wait()
	d.Release(t, "delete_snapshot")
	if n := len(d.Calls(t, "delete_snapshot")); n != 1 {
		t.Errorf("the CPI got %d requests", n)
	}
	if one := snapshots(t, d.Agent)["snap-old-0"]; one.State != agent.SnapshotDeleting {
		t.Errorf("what was cut off is %q", one.State)
	}
	if diff := cmp.Diff([]string{"snap-old-1 deleted", "snap-old-2 deleted"}, verdicts(apply(t, d))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
