package agent_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api/apitest"
)

func answerError(message string) string {
	return fmt.Sprintf(`{"result":null,"error":{"type":"Bosh::Clouds::CloudError","message":%q,"ok_to_retry":false},"log":""}`, message)
}

// The messages are those of real CPIs, with another CID.
func TestMessagesThatSayThatASnapshotIsGone(t *testing.T) {
	const cid = "snap-1.a"
	for message, want := range map[string]bool{
		"The snapshot 'snap-1.a' does not exist.":                                                        true,
		"Deleting snapshot 'snap-1.a': Google Snapshot 'snap-1.a' does not exists":                       true,
		"The Resource 'Microsoft.Compute/snapshots/snap-1.a' under resource group 'bosh' was not found.": true,
		`cannot delete snapshot "snap-1.a": snapshot "snap-1.a" is not there`:                            true,
		"Snapshot snap-1.a could not be found.":                                                          true,
		"snap-1.a not found":                                                                             true,
		"The snapshot 'snap-1.a' is currently in use by ami-1":                                           false,
		"The snapshot 'snap-1-a' does not exist.":                                                        false,
		"The snapshot 'old-snap-1.a' does not exist.":                                                    false,
		"The snapshot 'snap-1.abc' does not exist.":                                                      false,
		"The specified SnapshotId does not exist.":                                                       false,
		"Resource group 'bosh' could not be found.":                                                      false,
		`cannot delete snapshot "snap-1.a": stat /var/vcap/cpi/snapshots: no such file or directory`:     false,
		`cannot delete snapshot "snap-1.a": the directory /var/vcap/cpi does not exist`:                  false,
		"cannot call snap-1.a: the endpoint https://ec2.example does not exist":                          false,
		"": false,
	} {
		pattern, err := agent.GonePattern(agent.GoneMessage, cid)
		if err != nil {
			t.Fatal(err)
		}
		if got := pattern.MatchString(message); got != want {
			t.Errorf("%q: %t", message, got)
		}
	}
}

func TestSnapshotThatIsGoneIsDroppedOnlyIfTheCPISaysSo(t *testing.T) {
	in := newInstance(t)
	in.take(agent.LevelNone)
	in.take(agent.LevelNone)
	for name, answer := range map[string]string{
		"another is not there":             answerError("The snapshot 'snap-2' does not exist."),
		"an answer that is none":           "snapshot 'snap-1' does not exist",
		"a method that is not there":       `{"result":null,"error":{"type":"Bosh::Clouds::NotImplemented","message":"snapshot 'snap-1' is not found","ok_to_retry":false},"log":""}`,
		"something else, the CID in words": answerError("snap-1 is in use"),
	} {
		t.Run(name, func(t *testing.T) {
			in.Answer(t, "delete_snapshot", answer)
			deleted, err := in.Agent.Delete(t.Context(), "snap-1")
			if err == nil || len(deleted.CIDs) > 0 || snapshots(t, in.Agent)["snap-1"].State != agent.SnapshotDeleting {
				t.Errorf("deleted %v, %v; the catalogue: %v", deleted, err, snapshots(t, in.Agent))
			}
		})
	}
	in.Answer(t, "delete_snapshot", answerError("The snapshot 'snap-1' does not exist."))
	deleted, err := in.Agent.Delete(t.Context(), "snap-1")
	in.must(err)
	if diff := cmp.Diff(agent.Deleted{CIDs: []string{"snap-1"}, Gone: []string{"snap-1"}}, deleted); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	in.Restart(t)
	if all := snapshots(t, in.Agent); len(all) != 1 || all["snap-2"].State != agent.SnapshotKnown {
		t.Errorf("left are %v", all)
	}
}

func TestHalfDeletedSnapshotsAreTriedAgainAndAfterARestartToo(t *testing.T) {
	in := newInstance(t)
	for range 3 {
		in.take(agent.LevelNone)
	}
	in.Answer(t, "delete_snapshot", answerError("in use"))
	for _, cid := range []string{"snap-1", "snap-2"} {
		if _, err := in.Agent.Delete(t.Context(), cid); err == nil {
			t.Fatal("the CPI's error is lost")
		}
	}
	in.Restart(t)
	if err := in.Agent.Redelete(t.Context()); err == nil {
		t.Error("the CPI's error is lost")
	}
	in.Answer(t, "delete_snapshot", "")
	in.must(in.Agent.Redelete(t.Context()))
	calls := len(in.Calls(t, "delete_snapshot"))
	in.must(in.Agent.Redelete(t.Context()))
	if all := snapshots(t, in.Agent); len(all) != 1 || all["snap-3"].State != agent.SnapshotKnown || len(in.Calls(t, "delete_snapshot")) != calls || calls != 6 {
		t.Errorf("left are %v after %d calls", all, calls)
	}
	status, err := in.Agent.Status()
	in.must(err)
	if want := (agent.Redeletes{Tried: 4, Failed: 2}); status.Redeletes != want {
		t.Errorf("counted %+v, want %+v", status.Redeletes, want)
	}
}

// A scheduled run must not be skipped for it.
func TestDeletingAgainMakesWayForWhateverWantsTheVM(t *testing.T) {
	in := newInstance(t)
	in.take(agent.LevelNone)
	in.Answer(t, "delete_snapshot", answerError("in use"))
	if _, err := in.Agent.Delete(t.Context(), "snap-1"); err == nil {
		t.Fatal("the CPI's error is lost")
	}
	in.Answer(t, "delete_snapshot", "")
	in.Hold(t, "delete_snapshot")
	again := make(chan error, 1)
	go func() { again <- in.Agent.Redelete(t.Context()) }()
	in.AwaitCall(t, "delete_snapshot", 2)
	if report := in.take(agent.LevelNone); report.Outcome != agent.OutcomeSucceeded {
		t.Errorf("the run: %+v", report)
	}
	if err := <-again; !errors.Is(err, agent.ErrMadeWay) {
		t.Errorf("deleting again: %v", err)
	}
	in.Release(t, "delete_snapshot")
	in.must(in.Agent.Redelete(t.Context()))
	status, err := in.Agent.Status()
	in.must(err)
	if all := snapshots(t, in.Agent); len(all) != 1 || status.Redeletes.Failed != 0 {
		t.Errorf("left are %v, status %+v", all, status)
	}
}

func TestWaitBetweenTriesDoublesWithEachFailure(t *testing.T) {
	wait, failed := time.Minute, errors.New("in use")
	for range 20 {
		next := agent.NextWait(wait, failed)
		if next < wait || next > time.Hour || next == wait && wait != time.Hour {
			t.Fatalf("%s after %s", next, wait)
		}
		wait = next
	}
	for _, err := range []error{nil, agent.ErrMadeWay, &agent.BusyError{}} {
		if got := agent.NextWait(time.Hour, err); got != time.Minute {
			t.Errorf("%s after %v", got, err)
		}
	}
}

func TestDirectorsSnapshotsAreDeletedByNameAlone(t *testing.T) {
	in := newInstance(t)
	in.take(agent.LevelNone)
	in.hold("hold-1", apitest.DiskCID)
	in.resume("hold-1", apitest.DiskCID)
	in.idle()
	deleted, err := in.Agent.DeleteAll(t.Context(), agent.Selection{})
	in.must(err)
	if diff := cmp.Diff(agent.Deleted{CIDs: []string{"snap-1"}, Held: []string{"snap of disk-1"}}, deleted); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	deleted, err = in.Agent.Delete(t.Context(), "snap of disk-1")
	in.must(err)
	if all := snapshots(t, in.Agent); len(all) > 0 || !slices.Equal(deleted.CIDs, []string{"snap of disk-1"}) {
		t.Errorf("deleted %v, left %v", deleted, all)
	}
}

// The entry of one disk's snapshot must not go with what is done to another's.
func TestHolderTellsOfOneSnapshotWhileAnotherOfHisIsDeleted(t *testing.T) {
	in := newTwoDisks(t)
	run, err := in.Agent.Take(t.Context(), agent.Request{ID: "hold-1", Level: agent.LevelNone, Lease: time.Minute})
	in.must(err)
	<-run.AtRest()
	in.must(in.Agent.Journal.Write(agent.Change{})) // it takes what is nothing, too
	run.Cancel()
	<-run.Done()
	tell := func(disk string) {
		t.Helper()
		_, err := in.Agent.ResumeHold(t.Context(), "hold-1", agent.HoldEnd{Snapshots: map[string]string{disk: "snap of " + disk}})
		in.must(err)
	}
	tell("disk-1")
	in.Hold(t, "delete_snapshot")
	deleted := make(chan error, 1)
	go func() {
		_, err := in.Agent.Delete(t.Context(), "snap of disk-1")
		deleted <- err
	}()
	in.AwaitCall(t, "delete_snapshot", 1)
	tell("disk-2")
	in.Release(t, "delete_snapshot")
	in.must(<-deleted)
	for range 2 {
		if all := snapshots(t, in.Agent); len(all) != 1 || all["snap of disk-2"].State != agent.SnapshotKnown {
			t.Errorf("known are %v", all)
		}
		in.Restart(t)
	}
}

// A run records its snapshots once more in the end.
func TestSnapshotOfARunThatHasNotEndedIsNotDeleted(t *testing.T) {
	in := newInstance(t)
	var early error
	in.at("before start", func() {
		_, err := in.Agent.ResumeHold(t.Context(), "hold-1", agent.HoldEnd{Snapshots: map[string]string{apitest.DiskCID: "snap-1"}})
		early = errors.Join(err, in.Agent.DeleteOne(t.Context(), "snap-1"))
	})
	run := in.hold("hold-1", apitest.DiskCID)
	_, err := in.Agent.ResumeHold(t.Context(), "hold-1", agent.HoldEnd{})
	in.must(err)
	<-run.Done()
	in.idle()
	var busy *agent.BusyError
	if !errors.As(early, &busy) || len(in.Calls(t, "delete_snapshot")) > 0 {
		t.Errorf("while the run goes on: %v", early)
	}
	_, err = in.Agent.Delete(t.Context(), "snap-1")
	in.must(err)
}
