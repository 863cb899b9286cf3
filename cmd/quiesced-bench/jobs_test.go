package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDowntimeIsLessWhatTheJobsNeedThemselves(t *testing.T) {
	const ms = time.Millisecond
	h := held{from: 5000 * ms, to: 5100 * ms}
	start := 10 * ms
	for name, c := range map[string]struct {
		before, after []life
		want          down
	}{
		"one job": {
			[]life{{told: 1000 * ms, ended: 4000 * ms}}, []life{{up: 5200 * ms}},
			down{one: 1090 * ms, all: 1090 * ms, whole: 4200 * ms}},
		"two that end one after the other": {
			[]life{{told: 0, ended: 2000 * ms}, {told: 2100 * ms, ended: 4100 * ms}}, []life{{up: 5200 * ms}, {up: 5300 * ms}},
			down{one: 3090 * ms, all: 1180 * ms, whole: 5300 * ms}},
		"two that end at once": {
			[]life{{told: 0, ended: 3000 * ms}, {told: 1000 * ms, ended: 4000 * ms}}, []life{{up: 5200 * ms}, {up: 5200 * ms}},
			down{one: 2090 * ms, all: 1080 * ms, whole: 5200 * ms}},
	} {
		t.Run(name, func(t *testing.T) {
			got := downtime(c.before, c.after, start, h)
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(down{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestLivesAreReadAsNoted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "job")
	if err := os.WriteFile(path, []byte("up 1\ntold 2\nended 3\nup 4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := lives(path)
	if diff := cmp.Diff([]life{{1, 2, 3}, {up: 4}}, got, cmp.AllowUnexported(life{})); diff != "" || err != nil {
		t.Errorf("error %v, -want +got:\n%s", err, diff)
	}
}
