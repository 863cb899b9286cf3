package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestDaemonEndsWhenItsJobIsGoneForGood(t *testing.T) {
	type step struct {
		at   time.Duration
		what string // link, unlink, busy, idle
	}
	for name, c := range map[string]struct {
		steps []step
		ends  time.Duration // 0 for never
	}{
		"a job that stays":                        {nil, 0},
		"a job that is taken away":                {[]step{{time.Minute, "unlink"}}, 3*time.Minute + 5*time.Second},
		"a job that comes back in time":           {[]step{{time.Minute, "unlink"}, {2 * time.Minute, "link"}}, 0},
		"a job that comes back and is taken away": {[]step{{time.Minute, "unlink"}, {2 * time.Minute, "link"}, {150 * time.Second, "unlink"}}, 275 * time.Second},
		"a job that leads nowhere":                {[]step{{time.Minute, "dangle"}}, 0},
		"a daemon that has work to finish":        {[]step{{0, "busy"}, {time.Minute, "unlink"}, {6 * time.Minute, "idle"}}, 6*time.Minute + 5*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				link := filepath.Join(dir, "quiesced")
				var busy atomic.Bool
				do := map[string]func() error{
					"link":   func() error { return os.Symlink(dir, link) },
					"unlink": func() error { return os.Remove(link) },
					"dangle": func() error { _ = os.Remove(link); return os.Symlink("/nowhere", link) },
					"busy":   func() error { busy.Store(true); return nil },
					"idle":   func() error { busy.Store(false); return nil },
				}
				if err := do["link"](); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				for _, s := range c.steps {
					time.AfterFunc(s.at, func() {
						if err := do[s.what](); err != nil {
							t.Error(err)
						}
					})
				}
				d := &deployment{link: link, after: 2 * time.Minute, every: watchedEvery, idle: func() bool { return !busy.Load() }, log: slog.New(slog.DiscardHandler)}
				ended := d.watch(ctx)
				took := time.Since(began)
				if ended != (c.ends > 0) || ended && (took < c.ends-watchedEvery || took > c.ends+watchedEvery) {
					t.Errorf("it ended: %t, after %s, want %s", ended, took, c.ends)
				}
			})
		})
	}
}
