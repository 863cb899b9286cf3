package agent_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quiesced/quiesced/agent"
)

func TestRunLoopTellsThatItTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			hang func(*agent.Agent)
			want int64
		}{
			"as long as nothing hangs":                {func(*agent.Agent) {}, 30},
			"also while a frozen window's loop turns": {func(a *agent.Agent) { a.WindowTurned(time.Now().Add(26 * time.Second)) }, 30},
			"not when a frozen window's loop stands":  {func(a *agent.Agent) { a.WindowTurned(time.Now()) }, 4},
			"and again after that window":             {func(a *agent.Agent) { a.WindowTurned(time.Now()); a.WindowTurned(time.Time{}) }, 30},
		} {
			var turns atomic.Int64
			a := agent.New(agent.Parts{Log: slog.New(slog.DiscardHandler), Turned: func() { turns.Add(1) }})
			c.hang(a)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second+time.Millisecond)
			a.Run(ctx)
			cancel()
			if got := turns.Load(); got != c.want {
				t.Errorf("it tells %s: got %d turns in 30 s, want %d", name, got, c.want)
			}
		}
	})
}

func TestRunLoopTellsNothingWhenTheAgentIsLocked(t *testing.T) {
	var turns atomic.Int64
	a := agent.New(agent.Parts{Log: slog.New(slog.DiscardHandler), Turned: func() { turns.Add(1) }})
	unlock := a.Lock()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { a.Run(ctx); close(ended) }()
	time.Sleep(2500 * time.Millisecond)
	if got := turns.Load(); got != 0 {
		t.Errorf("%d turns while nobody can get at the agent", got)
	}
	unlock()
	cancel()
	<-ended
}
