package retention_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent/retention"
)

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC) // a Thursday

// at is a scheduled clean snapshot of disk-1, named after its time.
func at(text string, change ...func(*retention.Entry)) retention.Entry {
	when, err := time.Parse("2006-01-02 15:04", text)
	if err != nil {
		panic(err)
	}
	e := retention.Entry{ID: text, Disk: "disk-1", Run: text, Trigger: "scheduled", Time: when, Clean: true}
	for _, c := range change {
		c(&e)
	}
	return e
}

func dirty(e *retention.Entry)  { e.Clean = false }
func byHand(e *retention.Entry) { e.Trigger = "manual" }

func apart(why string) func(*retention.Entry) {
	return func(e *retention.Entry) { e.Apart = why }
}

func of(disk, run string) func(*retention.Entry) {
	return func(e *retention.Entry) { e.Disk, e.Run, e.ID = disk, run, run+" of "+disk }
}

func general(p retention.Policy) retention.Policies { return retention.Policies{General: p} }

func TestSnapshotStaysOrGoes(t *testing.T) {
	for _, test := range []struct {
		name    string
		keep    retention.Policies
		entries []retention.Entry
		want    string // a line each
	}{
		{
			"without a policy all stay", retention.Policies{},
			[]retention.Entry{at("2001-01-01 00:00", dirty), at("2026-11-25 07:00")},
			`
2001-01-01 00:00 stays: its policy keeps all
2026-11-25 07:00 stays: its policy keeps all, the newest clean one`,
		},
		{
			"the last ones stay", general(retention.Policy{Last: 2}),
			[]retention.Entry{at("2026-11-23 07:00"), at("2026-11-24 07:00"), at("2026-11-25 07:00")},
			`
2026-11-23 07:00 goes: no count keeps it
2026-11-24 07:00 stays: among the last 2
2026-11-25 07:00 stays: among the last 2, the newest clean one`,
		},
		{
			"one of each day stays, and a day without one counts for nothing", general(retention.Policy{Daily: 2}),
			[]retention.Entry{at("2026-11-20 07:00"), at("2026-11-20 19:00"), at("2026-11-25 07:00"), at("2026-11-25 23:59")},
			`
2026-11-20 07:00 goes: no count keeps it
2026-11-20 19:00 stays: daily 2026-11-20
2026-11-25 07:00 goes: no count keeps it
2026-11-25 23:59 stays: the newest one, daily 2026-11-25, the newest clean one`,
		},
		{
			"one of each period stays, weeks and all", general(retention.Policy{Hourly: 1, Weekly: 2, Monthly: 2, Yearly: 2}),
			[]retention.Entry{at("2025-12-28 07:00"), at("2025-12-29 07:00"), at("2026-01-03 07:00"), at("2026-01-04 07:00"), at("2026-01-05 07:00")},
			`
2025-12-28 07:00 goes: no count keeps it
2025-12-29 07:00 stays: monthly 2025-12, yearly 2025
2026-01-03 07:00 goes: no count keeps it
2026-01-04 07:00 stays: weekly 2026-W01
2026-01-05 07:00 stays: the newest one, hourly 2026-01-05T07, weekly 2026-W02, monthly 2026-01, yearly 2026, the newest clean one`,
		},
		{
			"a dirty one does not push out the clean one of its day", general(retention.Policy{Daily: 2}),
			[]retention.Entry{at("2026-11-24 07:00"), at("2026-11-24 19:00", dirty), at("2026-11-25 07:00"), at("2026-11-25 19:00", dirty)},
			`
2026-11-24 07:00 stays: daily 2026-11-24
2026-11-24 19:00 goes: no count keeps it
2026-11-25 07:00 stays: daily 2026-11-25, the newest clean one
2026-11-25 19:00 stays: the newest one`,
		},
		{
			"a day without a clean one keeps its newest", general(retention.Policy{Daily: 1}),
			[]retention.Entry{at("2026-11-25 07:00", dirty), at("2026-11-25 19:00", dirty)},
			`
2026-11-25 07:00 goes: no count keeps it
2026-11-25 19:00 stays: the newest one, daily 2026-11-25`,
		},
		{
			"what is too old goes, whatever the counts", general(retention.Policy{Last: 3, MaxAge: 48 * time.Hour}),
			[]retention.Entry{at("2026-11-24 11:59"), at("2026-11-24 12:00"), at("2026-11-25 07:00")},
			`
2026-11-24 11:59 goes: older than 2d
2026-11-24 12:00 stays: among the last 3
2026-11-25 07:00 stays: among the last 3, the newest clean one`,
		},
		{
			"an age alone keeps all that is younger", general(retention.Policy{MaxAge: 36 * time.Hour}),
			[]retention.Entry{at("2026-11-24 23:00"), at("2026-11-25 07:00", dirty), at("2026-11-25 07:01")},
			`
2026-11-24 23:00 goes: older than 1d12h
2026-11-25 07:00 stays: younger than 1d12h
2026-11-25 07:01 stays: younger than 1d12h, the newest clean one`,
		},
		{
			"the newest clean one never goes, be it the oldest of all", general(retention.Policy{Last: 1, MaxAge: time.Hour}),
			[]retention.Entry{at("2001-01-01 00:00"), at("2026-11-26 10:00", dirty), at("2026-11-26 11:30", dirty)},
			`
2001-01-01 00:00 stays: the newest clean one
2026-11-26 10:00 goes: older than 1h
2026-11-26 11:30 stays: among the last 1`,
		},
		{
			"the newest clean one is whatever took it, and of each disk", general(retention.Policy{Last: 1, MaxAge: time.Hour}),
			[]retention.Entry{at("2026-01-01 00:00"), at("2026-01-02 00:00", byHand), at("2026-01-01 01:00", of("disk-2", "run-2"))},
			`
2026-01-01 00:00 goes: older than 1h
2026-01-02 00:00 stays: the newest clean one
run-2 of disk-2 stays: the newest clean one`,
		},
		{
			"what is kept apart takes nobody's place", general(retention.Policy{Last: 1}),
			[]retention.Entry{at("2026-11-23 07:00"), at("2026-11-24 07:00"), at("2026-11-25 07:00", apart("the director's"))},
			`
2026-11-23 07:00 goes: no count keeps it
2026-11-24 07:00 stays: among the last 1, the newest clean one
2026-11-25 07:00 stays: the director's`,
		},
		{
			"what is from the future takes nobody's place either", general(retention.Policy{Last: 1, MaxAge: 48 * time.Hour}),
			[]retention.Entry{at("2026-11-25 06:00"), at("2026-11-25 07:00"), at("2031-01-01 00:00")},
			`
2026-11-25 06:00 goes: no count keeps it
2026-11-25 07:00 stays: among the last 1, the newest clean one
2031-01-01 00:00 stays: its time is yet to come: the clock was ahead`,
		},
		{
			"of what was taken at one time the greater id is the newer", general(retention.Policy{Last: 1}),
			[]retention.Entry{at("2026-11-25 07:00", of("disk-1", "run-2")), at("2026-11-25 07:00", of("disk-1", "run-1"))},
			`
run-2 of disk-1 stays: among the last 1, the newest clean one
run-1 of disk-1 goes: no count keeps it`,
		},
		{
			"a trigger's own policy counts its own alone", retention.Policies{
				General: retention.Policy{Last: 1}, Own: map[string]retention.Policy{"manual": {Last: 2}},
			},
			[]retention.Entry{
				at("2026-11-22 07:00", byHand), at("2026-11-23 07:00", byHand), at("2026-11-24 07:00", byHand),
				at("2026-11-24 08:00"), at("2026-11-25 07:00", func(e *retention.Entry) { e.Trigger = "self" }),
			},
			`
2026-11-22 07:00 goes: no count keeps it
2026-11-23 07:00 stays: among the last 2
2026-11-24 07:00 stays: among the last 2
2026-11-24 08:00 goes: no count keeps it
2026-11-25 07:00 stays: among the last 1, the newest clean one`,
		},
		{
			"a trigger's own policy without anything keeps all of it", retention.Policies{
				General: retention.Policy{MaxAge: time.Hour}, Own: map[string]retention.Policy{"manual": {}},
			},
			[]retention.Entry{at("2001-01-01 00:00", byHand), at("2026-11-24 07:00"), at("2026-11-25 07:00")},
			`
2001-01-01 00:00 stays: its policy keeps all
2026-11-24 07:00 goes: older than 1h
2026-11-25 07:00 stays: the newest clean one`,
		},
		{
			"a run's snapshots go together, and each disk's are counted for themselves", general(retention.Policy{Last: 1}),
			[]retention.Entry{
				at("2026-11-23 07:00", of("disk-1", "run-1")), at("2026-11-23 07:00", of("disk-2", "run-1")),
				at("2026-11-24 07:00", of("disk-1", "run-2")), at("2026-11-24 07:00", of("disk-2", "run-2")),
				at("2026-11-25 07:00", of("disk-1", "run-3")),
			},
			`
run-1 of disk-1 goes: no count keeps it
run-1 of disk-2 goes: no count keeps it
run-2 of disk-1 stays: goes with its run's snapshot of disk "disk-2"
run-2 of disk-2 stays: among the last 1, the newest clean one
run-3 of disk-1 stays: among the last 1, the newest clean one`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got strings.Builder
			for _, d := range retention.Plan(test.keep, test.entries, noon) {
				_, _ = fmt.Fprintf(&got, "\n%s %s: %s", d.ID, map[bool]string{true: "stays", false: "goes"}[d.Keep], d.Why)
			}
			if diff := cmp.Diff(test.want, got.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A year of one snapshot every six hours.
func TestYearOfSnapshotsIsThinnedOut(t *testing.T) {
	var entries []retention.Entry
	for when := noon.AddDate(-1, 0, 0); !when.After(noon); when = when.Add(6 * time.Hour) {
		entries = append(entries, at(when.Format("2006-01-02 15:04")))
	}
	kept := stay(retention.Plan(general(retention.Policy{Last: 3, Daily: 7, Weekly: 4, Monthly: 3}), entries, noon))
	want := []string{
		"2026-09-30 18:00", "2026-10-31 18:00", "2026-11-08 18:00", "2026-11-15 18:00", "2026-11-20 18:00", "2026-11-21 18:00",
		"2026-11-22 18:00", "2026-11-23 18:00", "2026-11-24 18:00", "2026-11-25 18:00", "2026-11-26 00:00", "2026-11-26 06:00",
		"2026-11-26 12:00",
	}
	if diff := cmp.Diff(want, kept); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// BenchmarkPlan decides on 10,000 snapshots of two disks, of which most go.
func BenchmarkPlan(b *testing.B) {
	entries := make([]retention.Entry, 10000)
	for i := range entries {
		entries[i] = retention.Entry{
			ID: fmt.Sprintf("snap-%d", i), Disk: fmt.Sprintf("disk-%d", i%2), Run: fmt.Sprintf("run-%d", i/2),
			Trigger: []string{"manual", "scheduled"}[i/2%2], Time: noon.Add(-time.Duration(i/2) * time.Hour), Clean: i%5 > 0,
		}
	}
	keep := retention.Policies{
		General: retention.Policy{Last: 3, Hourly: 24, Daily: 30, Weekly: 8, Monthly: 12, Yearly: 5},
		Own:     map[string]retention.Policy{"manual": {Last: 1000, MaxAge: 100 * 24 * time.Hour}},
	}
	b.ReportAllocs()
	for b.Loop() {
		retention.Plan(keep, entries, noon)
	}
}
