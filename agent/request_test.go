package agent_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/quiesce"
)

// settings are those of an instance with two disks.
func settings() *agent.Settings {
	return &agent.Settings{
		Instance: agent.Instance{Deployment: "cf", Job: "db", Index: 3, ID: "6f1c", AgentID: "agent-1"},
		Disks:    []quiesce.Disk{{CID: "vol-1", Mounts: []string{"/store"}}, {CID: "vol-2", Mounts: []string{"/more"}}},
		Levels: map[agent.Trigger]agent.Level{
			agent.TriggerManual: agent.LevelFreeze, agent.TriggerScheduled: agent.LevelSync, agent.TriggerSelf: agent.LevelNone,
		},
	}
}

// wantRefused checks that an error refuses, which field it blames and what it
// says of it.
func wantRefused(t testing.TB, err error, field, message string) {
	t.Helper()
	refused, ok := errors.AsType[*agent.RefusedError](err)
	if !ok {
		t.Fatalf("got %v, want it refused", err)
	}
	if refused.Field != field || err.Error() != message {
		t.Errorf("got  %q: %s\nwant %q: %s", refused.Field, err, field, message)
	}
}

func TestRequestIsCompletedFromTheConfiguration(t *testing.T) {
	for name, c := range map[string]struct {
		asked   agent.Request
		degrade bool // allow_degrade in the configuration
		want    agent.Request
	}{
		"nothing but an id": {
			asked: agent.Request{ID: "r"},
			want:  agent.Request{ID: "r", Trigger: agent.TriggerManual, Level: agent.LevelFreeze},
		},
		"the level of another trigger": {
			asked: agent.Request{ID: "r", Trigger: agent.TriggerScheduled},
			want:  agent.Request{ID: "r", Trigger: agent.TriggerScheduled, Level: agent.LevelSync},
		},
		"a level that is given stays": {
			asked: agent.Request{ID: "r", Trigger: agent.TriggerSelf, Level: agent.LevelStop},
			want:  agent.Request{ID: "r", Trigger: agent.TriggerSelf, Level: agent.LevelStop},
		},
		"the operator allows to degrade for all": {
			asked: agent.Request{ID: "r"}, degrade: true,
			want: agent.Request{ID: "r", Trigger: agent.TriggerManual, Level: agent.LevelFreeze, AllowDegrade: true},
		},
		"the request alone allows to degrade": {
			asked: agent.Request{ID: "r", AllowDegrade: true},
			want:  agent.Request{ID: "r", Trigger: agent.TriggerManual, Level: agent.LevelFreeze, AllowDegrade: true},
		},
		"everything is given": {
			asked: agent.Request{
				ID: "_a-Z9", Trigger: agent.TriggerManual, Level: agent.LevelNone, Job: "db/3", Disks: []string{"vol-2", "vol-1"},
				Metadata: map[string]string{"tag": "x"}, Wait: true, By: "root",
			},
			want: agent.Request{
				ID: "_a-Z9", Trigger: agent.TriggerManual, Level: agent.LevelNone, Job: "db/3", Disks: []string{"vol-2", "vol-1"},
				Metadata: map[string]string{"tag": "x"}, Wait: true, By: "root",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := settings()
			s.AllowDegrade = c.degrade
			got, err := s.Completed(c.asked)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestRequestWithoutAnIDGetsOneOfItsOwn(t *testing.T) {
	first, err := settings().Completed(agent.Request{})
	if err != nil {
		t.Fatal(err)
	}
	second, err := settings().Completed(agent.Request{})
	if err != nil || first.ID == "" || first.ID == second.ID {
		t.Errorf("got ids %q and %q, %v", first.ID, second.ID, err)
	}
	if again, err := settings().Completed(agent.Request{ID: first.ID}); err != nil || again.ID != first.ID {
		t.Errorf("an id of ours is refused: %v", err)
	}
}

func TestRequestThatCannotBeCarriedOutIsRefused(t *testing.T) {
	const id = "is not usable: up to 64 letters, digits, '-' and '_'"
	for name, c := range map[string]struct {
		asked          agent.Request
		field, message string
	}{
		"an id that leads elsewhere":  {agent.Request{ID: "../x"}, "id", `id: "../x" ` + id},
		"an id of two tokens":         {agent.Request{ID: "a.b"}, "id", `id: "a.b" ` + id},
		"an id that is a wildcard":    {agent.Request{ID: "*"}, "id", `id: "*" ` + id},
		"an id like an option":        {agent.Request{ID: "-rf"}, "id", `id: "-rf" ` + id},
		"an id with a line's end":     {agent.Request{ID: "a\n"}, "id", `id: "a\n" ` + id},
		"an id that is too long":      {agent.Request{ID: strings.Repeat("a", 65)}, "id", `id: "` + strings.Repeat("a", 65) + `" ` + id},
		"a trigger that is not known": {agent.Request{Trigger: "cron"}, "trigger", `trigger: unknown trigger "cron" (one of manual, scheduled, self, director)`},
		"the director's own trigger": {
			agent.Request{Trigger: agent.TriggerDirector}, "trigger",
			`trigger: "director" is a hold, whose snapshot the director takes itself`,
		},
		"a level that is not known": {agent.Request{Level: "deep"}, "level", `level: unknown level "deep" (one of none, sync, freeze, lock, stop)`},
		"another job":               {agent.Request{Job: "web"}, "job", `job: unknown job "web": this instance is db/6f1c`},
		"a key of the instance's":   {agent.Request{Metadata: map[string]string{"job": "x"}}, "metadata.job", "metadata.job: the key is the instance's own"},
		"a disk of another instance": {
			agent.Request{Disks: []string{"vol-1", "vol-9"}}, "disks[1]",
			`disks[1]: unknown disk "vol-9": this instance has "vol-1", "vol-2"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := settings().Completed(c.asked)
			wantRefused(t, err, c.field, c.message)
		})
	}
}

func TestIDOfTheGreatestLengthIsUsable(t *testing.T) {
	if _, err := settings().Completed(agent.Request{ID: strings.Repeat("a", 64)}); err != nil {
		t.Error(err)
	}
}

func TestTriggerWithoutAConfiguredLevelIsRefused(t *testing.T) {
	s := settings()
	s.Levels = nil
	_, err := s.Completed(agent.Request{})
	wantRefused(t, err, "level", `level: unknown level "" (one of none, sync, freeze, lock, stop)`)
}

func TestJobIsTheInstancesOwnByNameIndexOrID(t *testing.T) {
	nameless := settings()
	nameless.Instance.ID = ""
	for name, c := range map[string]struct {
		settings *agent.Settings
		asked    string
		want     string // the error, "" for none
	}{
		"nothing is asked for":            {settings(), "", ""},
		"the job":                         {settings(), "db", ""},
		"the index":                       {settings(), "db/3", ""},
		"the id":                          {settings(), "db/6f1c", ""},
		"another job":                     {settings(), "web", `job: unknown job "web": this instance is db/6f1c`},
		"another job's index":             {settings(), "web/3", `job: unknown job "web/3": this instance is db/6f1c`},
		"a part of the job":               {settings(), "d", `job: unknown job "d": this instance is db/6f1c`},
		"another index":                   {settings(), "db/0", `job: unknown instance "db/0": this instance is db/6f1c (index 3)`},
		"another id":                      {settings(), "db/6f1", `job: unknown instance "db/6f1": this instance is db/6f1c (index 3)`},
		"an index in another spelling":    {settings(), "db/03", `job: unknown instance "db/03": this instance is db/6f1c (index 3)`},
		"a slash and nothing":             {settings(), "db/", `job: unknown instance "db/": this instance is db/6f1c (index 3)`},
		"no id, and a slash and nothing":  {nameless, "db/", `job: unknown instance "db/": this instance is db/3 (index 3)`},
		"no id, and the index":            {nameless, "db/3", ""},
		"two slashes":                     {settings(), "db/3/x", `job: unknown instance "db/3/x": this instance is db/6f1c (index 3)`},
		"a slash and no job":              {settings(), "/3", `job: unknown job "/3": this instance is db/6f1c`},
		"the index, but in no job at all": {settings(), "3", `job: unknown job "3": this instance is db/6f1c`},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.settings.CheckJob(c.asked)
			if c.want != "" {
				wantRefused(t, err, "job", c.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDisksAreSelectedInTheOrderAskedFor(t *testing.T) {
	both := settings().Disks
	for name, c := range map[string]struct {
		asked []string
		want  []quiesce.Disk
	}{
		"none means all":   {nil, both},
		"one":              {[]string{"vol-2"}, both[1:]},
		"both, other way":  {[]string{"vol-2", "vol-1"}, []quiesce.Disk{both[1], both[0]}},
		"an empty list is": {[]string{}, both},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := settings().Selected(c.asked)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestDisksThatCannotBeSelectedAreRefused(t *testing.T) {
	diskless := settings()
	diskless.Disks = nil
	for name, c := range map[string]struct {
		settings       *agent.Settings
		asked          []string
		field, message string
	}{
		"an unknown disk":        {settings(), []string{"vol-3"}, "disks[0]", `disks[0]: unknown disk "vol-3": this instance has "vol-1", "vol-2"`},
		"a part of a CID":        {settings(), []string{"vol"}, "disks[0]", `disks[0]: unknown disk "vol": this instance has "vol-1", "vol-2"`},
		"an empty CID":           {settings(), []string{"vol-1", ""}, "disks[1]", `disks[1]: unknown disk "": this instance has "vol-1", "vol-2"`},
		"a disk named twice":     {settings(), []string{"vol-1", "vol-2", "vol-1"}, "disks[2]", `disks[2]: disk "vol-1" is named twice`},
		"an instance of no disk": {diskless, []string{"vol-1"}, "disks[0]", `disks[0]: unknown disk "vol-1": this instance has none`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.settings.Selected(c.asked)
			wantRefused(t, err, c.field, c.message)
		})
	}
}

func TestMetadataMustNotPassForTheInstances(t *testing.T) {
	for _, key := range []string{"deployment", "job", "index", "director_name", "director_uuid", "agent_id", "instance_id"} {
		t.Run(key, func(t *testing.T) {
			err := agent.CheckMetadata(map[string]string{"mine": "x", key: "y"})
			wantRefused(t, err, "metadata."+key, "metadata."+key+": the key is the instance's own")
		})
	}
	if err := agent.CheckMetadata(map[string]string{"Job": "x", "owner": "y", "": "z"}); err != nil {
		t.Error(err)
	}
}

func TestSameIDAsksForTheSameUnlessAFieldDiffers(t *testing.T) {
	base := agent.Request{
		ID: "r", Trigger: agent.TriggerManual, Level: agent.LevelFreeze, Job: "db",
		Disks: []string{"vol-1", "vol-2"}, Metadata: map[string]string{"a": "b"},
	}
	for name, c := range map[string]struct {
		change func(*agent.Request)
		same   bool
	}{
		"nothing":                   {func(*agent.Request) {}, true},
		"who asks":                  {func(r *agent.Request) { r.By = "root" }, true},
		"whether it waits":          {func(r *agent.Request) { r.Wait = true }, true},
		"the trigger":               {func(r *agent.Request) { r.Trigger = agent.TriggerSelf }, false},
		"the level":                 {func(r *agent.Request) { r.Level = agent.LevelSync }, false},
		"the job":                   {func(r *agent.Request) { r.Job = "db/3" }, false},
		"the disks":                 {func(r *agent.Request) { r.Disks = []string{"vol-1"} }, false},
		"the metadata":              {func(r *agent.Request) { r.Metadata = map[string]string{"a": "c"} }, false},
		"whether it may be lowered": {func(r *agent.Request) { r.AllowDegrade = true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			other := base
			c.change(&other)
			if base.Same(other) != c.same || other.Same(base) != c.same {
				t.Errorf("got %t, want %t", base.Same(other), c.same)
			}
		})
	}
}

func TestRequestWithNoListIsTheSameAsWithAnEmptyOne(t *testing.T) {
	a, b := agent.Request{ID: "r"}, agent.Request{ID: "r", Disks: []string{}, Metadata: map[string]string{}}
	if !a.Same(b) || !cmp.Equal(a, b, cmpopts.EquateEmpty()) {
		t.Error("a request that was read back from the journal is not the one that was made")
	}
}

func TestInstanceIsNamedByItsIDOrElseItsIndex(t *testing.T) {
	for want, in := range map[string]agent.Instance{
		"db/6f1c": {Job: "db", Index: 3, ID: "6f1c"},
		"db/3":    {Job: "db", Index: 3},
	} {
		if in.String() != want {
			t.Errorf("got %s, want %s", in, want)
		}
	}
}
