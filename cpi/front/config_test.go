package front_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
	"github.com/quiesced/quiesced/cpi/front"
)

func TestTheFirstRuleThatMatchesGivesTheLevel(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		agent string
		level agent.Level
		rules []front.Rule
		want  string // "" where the request is passed on
	}{
		{"no rule", "a-1", "freeze", nil, "freeze"},
		{"an empty rule", "a-1", "freeze", []front.Rule{{Level: "stop"}}, "stop"},
		{"the first of two", "a-1", "freeze", []front.Rule{{Job: "db", Level: "lock"}, {Level: "stop"}}, "lock"},
		{"another job", "a-1", "freeze", []front.Rule{{Job: "web", Level: "lock"}, {Deployment: "dep", Level: "sync"}}, "sync"},
		{"another deployment", "a-1", "freeze", []front.Rule{{Deployment: "cf", Job: "db", Level: "lock"}}, "freeze"},
		{"a tag", "a-1", "freeze", []front.Rule{{Tags: map[string]string{"owner": "me"}, Level: "lock"}}, "lock"},
		{"a tag of another value", "a-1", "freeze", []front.Rule{{Tags: map[string]string{"owner": "you"}, Level: "lock"}}, "freeze"},
		{"a tag that is not there", "a-1", "freeze", []front.Rule{{Tags: map[string]string{"tier": ""}, Level: "lock"}}, "freeze"},
		{"the director's own VM goes no further than freeze", "self", "stop", nil, "freeze"},
		{"by a rule neither", "self", "sync", []front.Rule{{Level: "lock"}}, "freeze"},
		{"but less", "self", "sync", nil, "sync"},
		{"none passes on", "a-1", "freeze", []front.Rule{{Job: "db", Level: "none"}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStand(t, "printf '%s\\n' '"+strings.TrimSpace(good)+"'")
			s.Config.Level, s.Config.Levels = tt.level, tt.rules
			ending := s.take(t, strings.Replace(asked, "a-1", tt.agent, 1))
			if ending.PassOn != (tt.want == "") {
				t.Errorf("the ending is %+v", ending)
			}
			for _, text := range s.daemon.called("quiesce") {
				var r []wire.Request
				if err := json.Unmarshal([]byte(text), &r); err != nil {
					t.Fatal(err)
				}
				same(t, "level", tt.want, r[0].Level)
			}
		})
	}
}

func TestAPatternIsBoundToTheDisk(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "",
		"aws":               `snapshot '[^']+' of volume '{disk_cid}' created`,
		"made {disk_cid}$":  "made {disk_cid}$",
		"made":              "error: needs {disk_cid}",
		"made {disk_cid} (": "error: error parsing regexp",
	} {
		got, err := front.ParseRelease(text)
		if err != nil {
			got = "error: " + err.Error()
		}
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%q: want %q, got %q", text, want, got)
		}
	}
}

func TestAPolicyIsOneOfThree(t *testing.T) {
	for _, name := range []string{"degrade", "skip", "fail"} {
		if p, err := front.ParsePolicy(name); string(p) != name || err != nil {
			t.Errorf("%q: got %q, %v", name, p, err)
		}
	}
	if _, err := front.ParsePolicy("Degrade"); err == nil {
		t.Error("an unknown policy was taken")
	}
}
