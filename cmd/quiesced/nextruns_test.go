package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// alone runs the program where there is neither a daemon nor a configuration.
func alone(t *testing.T, args ...string) result {
	t.Helper()
	nowhere := t.TempDir()
	var out, err bytes.Buffer
	args = append(args, "--config", nowhere+"/quiesced.yml", "--socket", nowhere+"/quiesced.sock")
	code := run(context.Background(), args, strings.NewReader(""), &out, &err)
	return result{code, out.String(), err.String()}
}

func TestNextRunsAreShownInUTCAndInTheScheduleSZone(t *testing.T) {
	got := alone(t, "next-runs", "0 30 1 * * * America/New_York", "--from", "2026-10-31T23:00:00Z", "--count", "3")
	want := `Next Run                 In America/New_York
2026-11-01 05:30:00 UTC  Sun 2026-11-01 01:30:00 -04:00
2026-11-01 06:30:00 UTC  Sun 2026-11-01 01:30:00 -05:00
2026-11-02 06:30:00 UTC  Mon 2026-11-02 01:30:00 -05:00

3 runs

Succeeded
`
	if diff := cmp.Diff(result{out: want}, got, cmp.AllowUnexported(result{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestNextRunsAsJSON(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"after a time in another zone": {
			[]string{"0 7 * * * America/New_York", "--from", "2026-03-07T20:30:00-04:00", "--count", "2"},
			[]string{"2026-03-08T11:00:00Z", "2026-03-09T11:00:00Z"},
		},
		"five if nobody says how many": {
			[]string{"@hourly", "--from", "2026-03-08T00:30:00Z"},
			[]string{"2026-03-08T01:00:00Z", "2026-03-08T02:00:00Z", "2026-03-08T03:00:00Z", "2026-03-08T04:00:00Z", "2026-03-08T05:00:00Z"},
		},
		"as many as there are":      {[]string{"@yearly", "--from", "9998-01-01T00:00:00Z"}, []string{"9999-01-01T00:00:00Z"}},
		"none if there are no more": {[]string{"@yearly", "--from", "9999-12-31T23:59:59Z"}, []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			r := alone(t, append([]string{"next-runs", "--json"}, c.args...)...)
			var got map[string]any
			if err := json.Unmarshal([]byte(r.out), &got); err != nil || r.code != exitOK || r.err != "" {
				t.Fatalf("%v: %+v", err, r)
			}
			next := []any{}
			for _, at := range c.want {
				next = append(next, at)
			}
			if diff := cmp.Diff(map[string]any{"cron": c.args[0], "next": next}, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestNextRunsBeginNow(t *testing.T) {
	before := time.Now()
	r := alone(t, "next-runs", "--json", "* * * * * *", "--count", "1")
	var got nextRuns
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || len(got.Next) != 1 {
		t.Fatalf("%v: %+v", err, r)
	}
	if first := got.Next[0]; !first.After(before) || first.After(time.Now().Add(time.Second)) {
		t.Errorf("the next second is %s, asked at %s", first, before)
	}
}

func TestARefusedScheduleIsToldOnStderrAlone(t *testing.T) {
	for name, c := range map[string]struct {
		args   []string
		stderr string
	}{
		"a minute that is none": {[]string{"60 * * * *"}, `minute: "60" is not a number from 0 to 59`},
		"in JSON":               {[]string{"--json", "60 * * * *"}, `minute: "60" is not a number from 0 to 59`},
		"nothing":               {[]string{"--json", ""}, "it is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			got := alone(t, append([]string{"next-runs"}, c.args...)...)
			cron := c.args[len(c.args)-1]
			want := result{code: exitUsage, err: `quiesced: cannot read the schedule "` + cron + `": ` + c.stderr + "\n"}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(result{})); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestNextRunsRefusesWhatIsNoQuestion(t *testing.T) {
	for name, c := range map[string]struct {
		args   []string
		stderr string
	}{
		"no schedule":                   {nil, "accepts 1 arg"},
		"a schedule that is not quoted": {[]string{"0", "7", "*", "*", "*"}, "accepts 1 arg"},
		"a time that is none":           {[]string{"@daily", "--from", "yesterday"}, `--from wants a time such as 2026-10-31T00:00:00Z, has "yesterday"`},
		"no runs":                       {[]string{"@daily", "--count", "0"}, "--count wants a number of runs, has 0"},
		"the daemon of another machine": {[]string{"@daily", "--address", "localhost:1"}, "next-runs is about this machine alone"},
	} {
		t.Run(name, func(t *testing.T) {
			r := alone(t, append([]string{"next-runs"}, c.args...)...)
			if r.code != exitUsage || r.out != "" || !strings.Contains(r.err, c.stderr) {
				t.Errorf("%+v, want %q", r, c.stderr)
			}
		})
	}
}
