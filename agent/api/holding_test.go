package api_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/wire"
)

// holds is the part of the suite in which the disk is really frozen.
var holds = []struct {
	name string
	test func(*testing.T, *apitest.Daemon, api.Client)
}{
	{"a hold freezes until it is resumed", testHold},
	{"what is told of a hold can be told again", testHoldAgain},
	{"a hold that is asked for again is joined", testHoldJoined},
	{"a lease that runs out resumes, and what comes late is recorded", testLeaseRunsOut},
	{"a lease that runs out after the point in time costs the snapshot nothing", testLeaseRunsOutLater},
	{"a CID that another snapshot has is not taken late", testLateCIDRepeated},
	{"a lease is renewed", testLeaseRenewed},
	{"a hold whose point in time is fixed is thawed before its outcome", testReleased},
	{"a hold that came to nothing has no snapshot", testHoldFailed},
	{"a hold is cancelled", testHoldCancelled},
	{"a hold that is not there yet is taken back", testHoldTakenBack},
	{"a hold outlasts its freeze and is not clean then", testHoldOutlastsFreeze},
}

func hold(id string) agent.Request {
	return agent.Request{ID: id, Level: agent.LevelFreeze, Disks: []string{apitest.DiskCID}, Lease: 10 * time.Second, Wait: true}
}

func snapped(cid string) wire.HoldEnd {
	return wire.HoldEnd{Snapshots: map[string]string{apitest.DiskCID: cid}}
}

// quiesce begins a hold and sees that the disk is frozen.
func quiesce(t *testing.T, d *apitest.Daemon, c api.Client, r agent.Request) wire.Lease {
	t.Helper()
	lease, err := c.Quiesce(t.Context(), r)
	no(t, err)
	if lease.ID != r.ID || lease.Level != "freeze" || lease.Seconds <= 0 || lease.Seconds > r.Lease.Seconds() || lease.Frozen <= 0 {
		t.Errorf("the lease is %+v", lease)
	}
	if !frozen(t, d) {
		t.Error("the disk is not frozen")
	}
	return lease
}

// frozen says whether a directory cannot be made on the disk within a moment.
func frozen(t *testing.T, d *apitest.Daemon) bool {
	t.Helper()
	made := make(chan error, 1)
	go func() { made <- os.Mkdir(filepath.Join(d.Mount, agent.NewID()), 0o700) }()
	select {
	case err := <-made:
		no(t, err)
		return false
	case <-time.After(100 * time.Millisecond):
		return true
	}
}

func thawed(t *testing.T, d *apitest.Daemon) {
	t.Helper()
	no(t, os.Mkdir(filepath.Join(d.Mount, agent.NewID()), 0o700))
}

// catalogued wants the one snapshot of the catalogue to be so.
func catalogued(t *testing.T, c api.Client, cid, state string, clean bool) {
	t.Helper()
	all, err := c.Snapshots(t.Context())
	no(t, err)
	if len(all) != 1 || all[0].CID != cid || all[0].State != state || all[0].Clean != clean || all[0].Trigger != "director" {
		t.Errorf("the catalogue is %+v, want %q, %s, clean %v", all, cid, state, clean)
	}
}

func testHold(t *testing.T, d *apitest.Daemon, c api.Client) {
	quiesce(t, d, c, hold("hold-1"))
	value, err := c.Caller.Call(t.Context(), "get_task", "hold-1")
	no(t, err)
	var lease wire.Lease
	no(t, json.Unmarshal(value, &lease))
	same(t, "hold-1", lease.ID)
	r, err := c.Resume(t.Context(), "hold-1", snapped("snap-7"))
	no(t, err)
	thawed(t, d)
	if r.Unbroken == nil || !*r.Unbroken || !r.Clean || r.Outcome != "succeeded" || r.Reached != "freeze" || r.Disks[0].SnapshotCID != "snap-7" || r.Seconds["frozen"] <= 0 {
		t.Errorf("the report is %+v", r)
	}
	catalogued(t, c, "snap-7", "known", true)
	final, err := c.Report(t.Context(), "hold-1")
	no(t, err)
	if !final.Clean || final.Trigger != "director" || final.Unbroken == nil || !*final.Unbroken || len(final.Metrics) == 0 {
		t.Errorf("the run's report is %+v", final)
	}
	if n := len(d.Calls(t, "snapshot_disk")); n != 0 {
		t.Errorf("the daemon's own CPI was asked for %d snapshots", n)
	}
}

func testHoldAgain(t *testing.T, d *apitest.Daemon, c api.Client) {
	quiesce(t, d, c, hold("hold-1"))
	first, err := c.Resume(t.Context(), "hold-1", snapped("snap-7"))
	no(t, err)
	again, err := c.Resume(t.Context(), "hold-1", snapped("snap-7"))
	no(t, err)
	other, err := c.Resume(t.Context(), "hold-1", snapped("snap-8"))
	no(t, err)
	for _, r := range []wire.Report{first, again, other} {
		same(t, "snap-7", r.Disks[0].SnapshotCID)
		same(t, true, *r.Unbroken)
	}
	catalogued(t, c, "snap-7", "known", true)
	_, err = c.Report(t.Context(), "hold-1")
	no(t, err)
	_, err = c.Quiesce(t.Context(), hold("hold-1"))
	if x := fails(t, err, api.KindRefused, "the hold is over"); x.Report == nil || !x.Report.Clean {
		t.Errorf("the report is %+v", x.Report)
	}
	_, err = c.Renew(t.Context(), "hold-1", time.Second)
	fails(t, err, api.KindRefused, "the hold is over")
}

func testHoldJoined(t *testing.T, d *apitest.Daemon, c api.Client) {
	first := quiesce(t, d, c, hold("hold-1"))
	again, err := c.Quiesce(t.Context(), hold("hold-1"))
	no(t, err)
	if again.ID != first.ID || again.Seconds >= first.Seconds {
		t.Errorf("joined to %+v after %+v", again, first)
	}
	_, err = c.Take(t.Context(), agent.Request{ID: "run-2"})
	fails(t, err, api.KindBusy, "busy with run hold-1 (frozen)")
	_, err = c.Resume(t.Context(), "hold-1", snapped("snap-7"))
	no(t, err)
}

func testLeaseRunsOut(t *testing.T, d *apitest.Daemon, c api.Client) {
	r := hold("hold-1")
	r.Lease = 500 * time.Millisecond
	quiesce(t, d, c, r)
	thawed(t, d) // waits for it
	_, err := c.Report(t.Context(), "hold-1")
	x := fails(t, err, api.KindFailed, "the lease ran out")
	if x.Report == nil || x.Report.Clean || *x.Report.Unbroken || !x.Report.Disks[0].Unresolved {
		t.Errorf("the report is %+v", x.Report)
	}
	catalogued(t, c, "", "unresolved", false)
	late, err := c.Resume(t.Context(), "hold-1", snapped("snap-7"))
	no(t, err)
	if late.Clean || *late.Unbroken || late.Outcome != "failed" || late.Disks[0].SnapshotCID != "snap-7" || late.Disks[0].Unresolved {
		t.Errorf("the report is %+v", late)
	}
	catalogued(t, c, "snap-7", "known", false)
	same(t, report2(t, c, "hold-1"), late.Disks[0].SnapshotCID)
}

func testLeaseRunsOutLater(t *testing.T, d *apitest.Daemon, c api.Client) {
	r := hold("hold-1")
	r.Lease = 500 * time.Millisecond
	quiesce(t, d, c, r)
	first, err := c.Resume(t.Context(), "hold-1", wire.HoldEnd{})
	no(t, err)
	same(t, true, *first.Unbroken)
	over(t, c)
	_, err = c.Report(t.Context(), "hold-1")
	x := fails(t, err, api.KindFailed, "the lease ran out")
	if x.Report == nil || x.Report.Clean || !*x.Report.Unbroken || !x.Report.Disks[0].Unresolved {
		t.Errorf("the report is %+v", x.Report)
	}
	late, err := c.Resume(t.Context(), "hold-1", snapped("snap-7"))
	no(t, err)
	if !late.Clean || !*late.Unbroken || late.Reached != "freeze" || late.Disks[0].Unresolved {
		t.Errorf("the report is %+v", late)
	}
	catalogued(t, c, "snap-7", "known", true)
}

func testLateCIDRepeated(t *testing.T, d *apitest.Daemon, c api.Client) {
	quiesce(t, d, c, hold("hold-1"))
	_, err := c.Resume(t.Context(), "hold-1", snapped("snap-7"))
	no(t, err)
	r := hold("hold-2")
	r.Lease = 100 * time.Millisecond
	_, err = c.Quiesce(t.Context(), r)
	no(t, err)
	over(t, c)
	_, err = c.Report(t.Context(), "hold-2")
	fails(t, err, api.KindFailed, "the lease ran out")
	_, err = c.Resume(t.Context(), "hold-2", snapped("snap-7"))
	fails(t, err, api.KindRefused, `"snap-7"`)
	all, err := c.Snapshots(t.Context())
	no(t, err)
	if len(all) != 2 || all[1].State != "unresolved" {
		t.Errorf("the catalogue is %+v", all)
	}
}

// over waits until nothing holds the VM any more.
func over(t *testing.T, c api.Client) {
	t.Helper()
	apitest.Eventually(t, "the hold is over", func() bool {
		s, err := c.Status(t.Context())
		no(t, err)
		return s.Work == ""
	})
}

// report2 is the CID in the report of a run that failed.
func report2(t *testing.T, c api.Client, id string) string {
	t.Helper()
	_, err := c.Report(t.Context(), id)
	return fails(t, err, api.KindFailed, "").Report.Disks[0].SnapshotCID
}

func testLeaseRenewed(t *testing.T, d *apitest.Daemon, c api.Client) {
	r := hold("hold-1")
	r.Lease = time.Second
	quiesce(t, d, c, r)
	for range 4 {
		time.Sleep(300 * time.Millisecond)
		lease, err := c.Renew(t.Context(), "hold-1", 2*time.Second)
		no(t, err)
		if lease.Seconds <= 1 || lease.Seconds > 2 {
			t.Errorf("the lease is %+v", lease)
		}
	}
	end, err := c.Resume(t.Context(), "hold-1", snapped("snap-7"))
	no(t, err)
	same(t, true, *end.Unbroken && end.Clean)
	_, err = c.Renew(t.Context(), "nope", time.Second)
	fails(t, err, api.KindInvalid, "Task with id nope could not be found")
}

func testReleased(t *testing.T, d *apitest.Daemon, c api.Client) {
	quiesce(t, d, c, hold("hold-1"))
	r, err := c.Resume(t.Context(), "hold-1", wire.HoldEnd{})
	no(t, err)
	thawed(t, d)
	if !*r.Unbroken || r.Outcome != "" || r.Disks[0].SnapshotCID != "" {
		t.Errorf("the report is %+v", r)
	}
	_, err = c.Renew(t.Context(), "hold-1", 10*time.Second)
	no(t, err)
	r, err = c.Resume(t.Context(), "hold-1", snapped("snap-7"))
	no(t, err)
	if !*r.Unbroken || !r.Clean || r.Outcome != "succeeded" || r.Disks[0].SnapshotCID != "snap-7" {
		t.Errorf("the report is %+v", r)
	}
	catalogued(t, c, "snap-7", "known", true)
}

func testHoldFailed(t *testing.T, d *apitest.Daemon, c api.Client) {
	quiesce(t, d, c, hold("hold-1"))
	r, err := c.Resume(t.Context(), "hold-1", wire.HoldEnd{Error: "no quota left"})
	no(t, err)
	thawed(t, d)
	if r.Clean || r.Outcome != "failed" || r.Disks[0].Unresolved || r.Disks[0].Error != "the holder says: no quota left" {
		t.Errorf("the report is %+v", r)
	}
	all, err := c.Snapshots(t.Context())
	no(t, err)
	same(t, 0, len(all))
}

func testHoldCancelled(t *testing.T, d *apitest.Daemon, c api.Client) {
	quiesce(t, d, c, hold("hold-1"))
	no(t, c.Cancel(t.Context(), "hold-1"))
	thawed(t, d)
	_, err := c.Report(t.Context(), "hold-1")
	x := fails(t, err, api.KindCancelled, "the run was cancelled")
	if x.Report == nil || *x.Report.Unbroken || x.Report.Clean {
		t.Errorf("the report is %+v", x.Report)
	}
	r, err := c.Resume(t.Context(), "hold-1", snapped("snap-7"))
	no(t, err)
	same(t, false, *r.Unbroken)
	catalogued(t, c, "snap-7", "known", false)
}

func testHoldTakenBack(t *testing.T, d *apitest.Daemon, c api.Client) {
	begin(t, d, c, agent.Request{ID: "run-1", Level: agent.LevelNone})
	d.Handler.Wait = 20 * time.Millisecond
	value, err := c.Caller.Call(t.Context(), "quiesce", wire.FromRequest(hold("hold-1")))
	no(t, err)
	same(t, `{"agent_task_id":"hold-1","state":"running"}`, string(value))
	d.Handler.Wait = 0
	r, err := c.Resume(t.Context(), "hold-1", wire.HoldEnd{Error: "given up"})
	no(t, err)
	if r.Outcome != "cancelled" || len(r.Disks) != 0 {
		t.Errorf("the report is %+v", r)
	}
	d.Release(t, "snapshot_disk")
	thawed(t, d)
}

func testHoldOutlastsFreeze(t *testing.T, d *apitest.Daemon, c api.Client) {
	d.Agent.Settings.Budgets.Frozen = 500 * time.Millisecond
	quiesce(t, d, c, hold("hold-1"))
	thawed(t, d) // at the deadline
	_, err := c.Renew(t.Context(), "hold-1", 10*time.Second)
	no(t, err)
	r, err := c.Resume(t.Context(), "hold-1", snapped("snap-7"))
	no(t, err)
	if *r.Unbroken || r.Clean || r.Outcome != "failed" || r.Reason == "" {
		t.Errorf("the report is %+v", r)
	}
	catalogued(t, c, "snap-7", "known", false)
}

func testHoldsRefused(t *testing.T, d *apitest.Daemon, c api.Client) {
	for _, test := range []struct {
		request agent.Request
		kind    api.Kind
		message string
	}{
		{agent.Request{ID: "hold-1"}, api.KindRefused, "lease_seconds: needed"},
		{agent.Request{ID: "hold-1", Lease: -time.Second}, api.KindRefused, "lease_seconds: -1 is not between 0 and 3600"},
		{agent.Request{ID: "hold-1", Lease: 2 * time.Hour}, api.KindRefused, "lease_seconds: 7200 is not between 0 and 3600"},
		{agent.Request{ID: "hold-1", Lease: time.Second, Trigger: "manual"}, api.KindRefused, `trigger: a hold's is "director"`},
		{agent.Request{ID: "hold-1", Lease: time.Second, Disks: []string{"disk-9"}}, api.KindNotAttached, `unknown disk "disk-9": this instance has "disk-1"`},
		{agent.Request{ID: "hold-1", Lease: time.Second, Level: agent.LevelFreeze}, api.KindRefused, "a filesystem of type tmpfs cannot be held"},
	} {
		_, err := c.Quiesce(t.Context(), test.request)
		fails(t, err, test.kind, test.message)
	}
	_, err := c.Take(t.Context(), agent.Request{Lease: time.Second})
	fails(t, err, api.KindRefused, "lease_seconds: a lease is a hold's (quiesce)")
	_, err = c.Resume(t.Context(), "nope", snapped("snap-7"))
	fails(t, err, api.KindInvalid, "Task with id nope could not be found")
	id := take(t, c)
	_, err = c.Resume(t.Context(), id, snapped("snap-7"))
	fails(t, err, api.KindRefused, `is no hold`)
	_, err = c.Caller.Call(t.Context(), "resume", "hold-1", map[string]any{"cid": "x"})
	fails(t, err, api.KindInvalid, `unknown field "cid"`)
	_, err = c.Caller.Call(t.Context(), "renew", "hold-1", "soon")
	fails(t, err, api.KindInvalid, "cannot unmarshal string into Go value of type float64")
	no(t, quiesceNone(t, c))
	_, err = c.Resume(t.Context(), "hold-2", wire.HoldEnd{Snapshots: map[string]string{"disk-9": "snap-7"}})
	fails(t, err, api.KindRefused, `snapshots: disk "disk-9" is none of the hold's`)
	_, err = c.Resume(t.Context(), "hold-2", wire.HoldEnd{Snapshots: map[string]string{apitest.DiskCID: ""}})
	fails(t, err, api.KindRefused, "snapshots: the CID of disk \"disk-1\"'s snapshot is empty")
	_, err = c.Resume(t.Context(), "hold-2", snapped("snap-9"))
	no(t, err)
	if n := len(d.Calls(t, "snapshot_disk")); n != 1 {
		t.Errorf("the CPI was asked for %d snapshots", n)
	}
}

func quiesceNone(t *testing.T, c api.Client) error {
	r := hold("hold-2")
	r.Level = agent.LevelNone
	_, err := c.Quiesce(t.Context(), r)
	return err
}

func testHoldDisabled(t *testing.T, _ *apitest.Daemon, c api.Client) {
	_, err := c.Quiesce(t.Context(), hold("hold-1"))
	fails(t, err, api.KindRefused, "snapshots are disabled")
}
