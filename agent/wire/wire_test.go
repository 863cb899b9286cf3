package wire_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
	"github.com/quiesced/quiesced/cpi"
	"github.com/quiesced/quiesced/quiesce"
	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/remount"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// at is a moment in a time zone that is not UTC.
func at(second int, nanos int) time.Time {
	return time.Date(2026, 3, 29, 1, 30, second, nanos, time.FixedZone("CET", 3600))
}

// full is a record in which no field is left empty, as far as one can be both
// under way and ended.
func full() agent.Record {
	return agent.Record{
		Request: agent.Request{
			ID: "run-1", Trigger: agent.TriggerScheduled, Level: agent.LevelFreeze, Job: "db/0", Disks: []string{"vol-1", "vol-2"},
			Metadata: map[string]string{"owner": "me", "empty": ""}, AllowDegrade: true, Wait: true, By: "uid 0",
			Snapshot: "snap-1", Force: true,
		},
		Plan: agent.Plan{
			Asked: agent.LevelStop, Level: agent.LevelFreeze, Degraded: "no supervisor", LevelNote: "no locks",
			JobsAtRest: true, CPIFreezes: true,
			Sizes: map[string]int64{"vol-2": 1 << 40},
			Disks: []quiesce.Disk{{CID: "vol-1", Mounts: []string{"/store", "/store2"}}, {CID: "vol-2", Device: "/dev/vdc", Mounts: []string{"/more"}}},
			Filesystems: []quiesce.Filesystem{{
				Superblock: quiesce.Superblock{Major: 254, Minor: 17}, Type: "btrfs", Path: "/store", MountID: 40,
				Mounts: []string{"/store", "/bound"}, Devices: []string{"vdb1", "vdc1"}, Disks: []string{"vol-1"},
				ReadOnly: true, Root: true, Rank: 2,
			}},
			Notes: []string{"/ro is read-only: nothing to bring to rest"},
			Actions: []agent.Action{
				{Kind: agent.ActStartCPI, Target: "vol-1", Budget: 30 * time.Second},
				{Kind: agent.ActFreeze, Target: "/store", Budget: 290 * time.Millisecond},
			},
		},
		Boot: "8e3a", Started: at(1, 123456789), Phase: agent.PhaseFreeze,
		Calls: []agent.Call{{DiskCID: "vol-1", Dir: "/state/runs/run-1/0", Process: cpi.Process{PID: 4242, StartTime: 1<<63 + 1}}},
		Held:  held(), Restore: held().Disk, Moved: "db was started", Undone: "post-start failed", Notes: []string{"a writer"},
		Freeze: &agent.FreezeEnd{
			Broken: "deadline",
			Thaws:  []agent.Thaw{{Mount: "/store", Cause: "deadline", State: "thawed", FrozenFor: 3 * time.Second}},
			Phases: map[agent.Phase]time.Duration{agent.PhaseFrozen: 3 * time.Second},
		},
		Report: &agent.Report{
			ID: "run-1", Trigger: agent.TriggerScheduled, By: "uid 0", Outcome: agent.OutcomeFailed,
			Asked: agent.LevelStop, Reached: agent.LevelFreeze, Clean: true, Reason: "a reason",
			Disks: []agent.DiskResult{
				{CID: "vol-1", SnapshotCID: "snap-1", Clean: true, Took: 1500 * time.Millisecond},
				{CID: "vol-2", Unresolved: true, Error: "no answer"},
			},
			Thaws:   []agent.Thaw{{Mount: "/store", Cause: "asked", State: "thawed", FrozenFor: 12345 * time.Microsecond}},
			Phases:  map[agent.Phase]time.Duration{agent.PhaseFrozen: 12345 * time.Microsecond, agent.PhaseTotal: 2 * time.Second},
			Started: at(1, 123456789), Ended: at(3, 0), Error: "cannot snapshot", Yielded: true, Recovered: true,
			Restore: &agent.Restored{Snapshot: "snap-1", Disk: "vol-1", Side: agent.SideApart, Other: "vol-3", Steps: []string{"bosh stop"}},
		},
	}
}

// taken is a snapshot, no field left empty.
func taken() agent.Snapshot {
	return agent.Snapshot{
		CID: "snap-1", DiskCID: "vol-1", State: agent.SnapshotDeleting, Clean: true, Asked: agent.LevelStop, Level: agent.LevelFreeze,
		Trigger: agent.TriggerScheduled, Held: true, RunID: "run-1", By: "uid 0", Created: at(2, 0), DiskSize: 1 << 40, Size: 1<<30 + 1, Note: "a note",
		Verified: &agent.Verification{Time: at(3, 0), OK: true, How: "e2fsck, job db", Result: "clean"},
	}
}

func TestSnapshotIsReadBackAsItWasStored(t *testing.T) {
	for name, want := range map[string]agent.Snapshot{"with every field": taken(), "of nothing": {}} {
		t.Run(name, func(t *testing.T) {
			doc, err := wire.MarshalSnapshot(want)
			must(t, err)
			got, err := wire.UnmarshalSnapshot(doc)
			must(t, err)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	for _, doc := range []string{"", "{", "[]", `{"created_at":5}`} {
		if _, err := wire.UnmarshalSnapshot([]byte(doc)); err == nil {
			t.Errorf("%q is read", doc)
		}
	}
}

// held is what is held of the jobs, no field left empty.
func held() *agent.Held {
	return &agent.Held{
		Run: "run-1", Trigger: agent.TriggerScheduled, Level: agent.LevelStop,
		PreStopped: true, Drained: true, Stopped: true, PreStarted: true, Started: true, Hooked: []string{"db", ""},
		Services: []agent.HeldService{
			{Name: "db", Processes: []jobs.Process{{PID: 4242, StartTime: 1<<63 + 1}}, Failing: true}, {Name: "proxy"},
		},
		Locked: [][]string{{"web", "api"}, {"db"}},
		Disk: &agent.HeldDisk{
			Snapshot: "snap-1", Disk: "vol-1", New: "vol-3", Back: true, Side: agent.SideRestored,
			Mounts:  []remount.Mount{{Point: "/store", Root: "/", Type: "ext4", Options: "rw,nosuid", Super: "rw,errors=continue"}},
			Between: &remount.Difference{Offset: 1 << 40, One: "aa", Other: "bb"},
			Call:    &agent.DiskCall{Dir: "/state/runs/run-1/cpi-call-1", Process: cpi.Process{PID: 4242, StartTime: 1<<63 + 1}, Boot: "8e3a"},
		},
	}
}

func TestWhatIsHeldIsReadBackAsItWasStored(t *testing.T) {
	doc, err := wire.MarshalHeld(*held())
	must(t, err)
	golden(t, "held.golden.json", doc)
	got, err := wire.UnmarshalHeld(doc)
	must(t, err)
	if diff := cmp.Diff(*held(), got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, doc := range []string{"", "{", "[]", `{"services":[{"processes":[{"pid":"x"}]}]}`} {
		if _, err := wire.UnmarshalHeld([]byte(doc)); err == nil {
			t.Errorf("%q is read", doc)
		}
	}
}

// kept compares what a stored record keeps. A filesystem's superblock, mount id,
// mounts and flags are those of one moment, of no use to another daemon.
var kept = cmp.Options{
	cmpopts.IgnoreFields(quiesce.Filesystem{}, "Superblock", "MountID", "Mounts", "Configured", "ReadOnly", "Root"),
	cmpopts.EquateEmpty(),
}

func TestRecordIsReadBackAsItWasStored(t *testing.T) {
	for name, want := range map[string]agent.Record{
		"with every field":    full(),
		"that has just begun": {Request: agent.Request{ID: "run-2", Trigger: agent.TriggerManual}, Started: at(0, 0), Phase: agent.PhasePrepare},
		"of nothing":          {},
	} {
		t.Run(name, func(t *testing.T) {
			doc, err := wire.MarshalRecord(want)
			must(t, err)
			got, err := wire.UnmarshalRecord(doc)
			must(t, err)
			if diff := cmp.Diff(want, got, kept); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestDurationsSurviveToTheMicrosecond(t *testing.T) {
	for _, d := range []time.Duration{
		time.Microsecond, 290 * time.Millisecond, 1100 * time.Millisecond, 30 * time.Minute, 1000*time.Hour + time.Microsecond,
	} {
		t.Run(d.String(), func(t *testing.T) {
			r := full()
			r.Plan.Actions[0].Budget, r.Report.Disks[0].Took, r.Report.Thaws[0].FrozenFor = d, d, d
			doc, err := wire.MarshalRecord(r)
			must(t, err)
			got, err := wire.UnmarshalRecord(doc)
			must(t, err)
			if diff := cmp.Diff(r, got, kept); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// golden compares a document with a file of testdata, which -update rewrites.
func golden(t *testing.T, name string, doc []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	var pretty bytes.Buffer
	must(t, json.Indent(&pretty, doc, "", "  "))
	pretty.WriteByte('\n')
	if *update {
		must(t, os.WriteFile(path, pretty.Bytes(), 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if diff := cmp.Diff(string(want), pretty.String()); diff != "" {
		t.Errorf("%s, -want +got:\n%s", path, diff)
	}
	return want
}

// A key that is renamed here makes the records of earlier versions unreadable.
func TestStoredRecordHasTheKeysOfEarlierVersions(t *testing.T) {
	doc, err := wire.MarshalRecord(full())
	must(t, err)
	stored := golden(t, "record.golden.json", doc)
	got, err := wire.UnmarshalRecord(stored)
	must(t, err)
	if diff := cmp.Diff(full(), got, kept); diff != "" {
		t.Errorf("read from the file, -want +got:\n%s", diff)
	}
}

func TestSnapshotHasTheKeysOfTheDirectorsList(t *testing.T) {
	in := agent.Instance{Deployment: "cf", Job: "db", Index: 3, ID: "6f1c", AgentID: "agent-1"}
	doc, err := json.Marshal(wire.FromSnapshot(taken(), in))
	must(t, err)
	golden(t, "snapshot.golden.json", doc)
}

func TestEmptyListsAreWrittenAsLists(t *testing.T) {
	for name, c := range map[string]struct {
		value any
		keys  []string
	}{
		"a plan":   {wire.FromPlan(agent.Plan{}), []string{`"disks":[]`, `"filesystems":[]`, `"actions":[]`}},
		"a report": {wire.FromReport(agent.Report{}), []string{`"disks":[]`}},
	} {
		t.Run(name, func(t *testing.T) {
			doc, err := json.Marshal(c.value)
			must(t, err)
			for _, key := range c.keys {
				if !bytes.Contains(doc, []byte(key)) {
					t.Errorf("no %s in %s", key, doc)
				}
			}
		})
	}
}

func TestStoredRecordOfANewerVersionIsReadable(t *testing.T) {
	got, err := wire.UnmarshalRecord([]byte(`{"request":{"id":"r","novel":[1]},"novel":{},"plan":{"novel":0},"report":{"novel":""}}`))
	must(t, err)
	if got.Request.ID != "r" || got.Report == nil {
		t.Errorf("got %+v", got)
	}
}

func TestDocumentThatIsNoRecordIsAnError(t *testing.T) {
	for name, doc := range map[string]string{
		"nothing": "", "zeros": "\x00\x00", "a record cut short": `{"request":{"id":"r"`, "a list": `[]`,
		"a time that is none": `{"started_at":"yesterday"}`, "a negative start time": `{"calls":[{"start_time":-1}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := wire.UnmarshalRecord([]byte(doc)); err == nil || !strings.HasPrefix(err.Error(), "cannot read a stored record: ") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestRequestIsParsed(t *testing.T) {
	full := full().Request
	full.By = ""                          // the transport knows who asks
	full.Snapshot, full.Force = "", false // a restore has a request of its own
	doc, err := json.Marshal(wire.FromRequest(full))
	must(t, err)
	for name, c := range map[string]struct {
		doc  string
		want agent.Request
	}{
		"an empty object": {`{}`, agent.Request{}},
		"every field":     {string(doc), full},
		"white space":     {" {\n\t\"level\": \"sync\" }\r\n ", agent.Request{Level: agent.LevelSync}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := wire.ParseRequest([]byte(c.doc))
			must(t, err)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestRequestThatCannotBeReadSaysWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct{ doc, want string }{
		"an unknown field":         {`{"lvel":"freeze"}`, `unknown field "lvel"`},
		"who asks":                 {`{"by":"root"}`, `unknown field "by"`},
		"a number for a level":     {`{"level":3}`, "level: got number, want a string"},
		"a string for the disks":   {`{"disks":"vol-1"}`, "disks: got string, want an array"},
		"a number among the disks": {`{"disks":["vol-1",2]}`, "disks: got number, want a string"},
		"a list for the metadata":  {`{"metadata":[]}`, "metadata: got array, want an object"},
		"a number in the metadata": {`{"metadata":{"tag":1}}`, "metadata: got number, want a string"},
		"a word for a flag":        {`{"wait":"yes"}`, "wait: got string, want true or false"},
		"a second document":        {`{} {}`, "something follows it"},
		"text behind":              {`{}x`, "something follows it"},
		"a list":                   {`[]`, "the document: got array, want an object"},
		"a string":                 {`"freeze"`, "the document: got string, want an object"},
		"null":                     {`null`, "it is null"},
		"nothing":                  {``, "it is empty"},
		"white space":              {" \n", "it is empty"},
		"an object cut short":      {`{"level":`, "unexpected EOF"},
		"no JSON":                  {`level: freeze`, "invalid character"},
		"1 MiB":                    {`{"job":"` + strings.Repeat("x", 1<<20) + `"}`, "1048586 bytes, more than 65536"},
		"1 MiB of white space":     {strings.Repeat(" ", 1<<20) + "{}", "1048578 bytes, more than 65536"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := wire.ParseRequest([]byte(c.doc))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "the request") {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "Go struct") {
				t.Errorf("speaks of Go: %v", err)
			}
			if diff := cmp.Diff(agent.Request{}, got); diff != "" {
				t.Errorf("a request beside the error, -want +got:\n%s", diff)
			}
		})
	}
}

func TestGreatestRequestIsRead(t *testing.T) {
	doc := `{"job":"` + strings.Repeat("x", wire.MaxRequest-len(`{"job":""}`)) + `"}`
	if _, err := wire.ParseRequest([]byte(doc)); err != nil {
		t.Error(err)
	}
	if _, err := wire.ParseRequest([]byte(doc + " ")); err == nil {
		t.Error("one byte more is read, too")
	}
}

func FuzzParseRequest(f *testing.F) {
	doc, err := json.Marshal(wire.FromRequest(full().Request))
	must(f, err)
	for _, seed := range []string{string(doc), `{}`, `null`, `{} {}`, `{"disks":null}`, `{"level":3}`, `{"LEVEL":"x","level":"y"}`, "{\"job\":\"\xff\"}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		r, err := wire.ParseRequest(doc)
		if err != nil {
			return
		}
		written, err := json.Marshal(wire.FromRequest(r))
		must(t, err)
		again, err := wire.ParseRequest(written)
		if len(written) > wire.MaxRequest { // escapes may be longer than what they stand for
			return
		}
		must(t, err)
		if diff := cmp.Diff(r, again, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("written and read again, -want +got:\n%s", diff)
		}
	})
}

func FuzzUnmarshalRecord(f *testing.F) {
	for _, r := range []agent.Record{full(), {}, {Request: agent.Request{ID: "run-2"}, Report: &agent.Report{}}} {
		doc, err := wire.MarshalRecord(r)
		must(f, err)
		f.Add(doc)
	}
	for _, seed := range []string{`{}`, `null`, `[]`, `{"report":{"seconds":{"frozen":1e300}}}`, `{"plan":{"actions":[{"budget_seconds":-0.3}]}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		r, err := wire.UnmarshalRecord(doc)
		if err != nil {
			return
		}
		stored, err := wire.MarshalRecord(r)
		if err != nil {
			return // a year that RFC 3339 cannot write
		}
		again, err := wire.UnmarshalRecord(stored)
		must(t, err)
		if diff := cmp.Diff(r, again, kept); diff != "" {
			t.Errorf("stored and read again, -want +got:\n%s", diff)
		}
	})
}
