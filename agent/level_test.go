package agent_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/agent"
)

func TestLevelsAreCleanFromFreezeUpwards(t *testing.T) {
	want := map[agent.Level]bool{
		agent.LevelNone: false, agent.LevelSync: false,
		agent.LevelFreeze: true, agent.LevelLock: true, agent.LevelStop: true,
	}
	got := map[agent.Level]bool{}
	for _, l := range agent.Levels() {
		got[l] = l.Clean()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestLevelsAreInRisingOrder(t *testing.T) {
	want := []agent.Level{"none", "sync", "freeze", "lock", "stop"}
	if diff := cmp.Diff(want, agent.Levels()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestEveryNameIsReadBackAndNoOther(t *testing.T) {
	for _, l := range agent.Levels() {
		if got, err := agent.ParseLevel(string(l)); got != l || err != nil {
			t.Errorf("level %q is read as %q, %v", l, got, err)
		}
	}
	for _, trigger := range agent.Triggers() {
		if got, err := agent.ParseTrigger(string(trigger)); got != trigger || err != nil {
			t.Errorf("trigger %q is read as %q, %v", trigger, got, err)
		}
	}
	for name, asked := range map[string]string{
		"nothing": "", "another word": "pause", "in capitals": "Freeze", "with white space": "sync ",
	} {
		t.Run(name, func(t *testing.T) {
			want := fmt.Sprintf("unknown level %q (one of none, sync, freeze, lock, stop)", asked)
			if _, err := agent.ParseLevel(asked); err == nil || err.Error() != want {
				t.Errorf("got %v\nwant %s", err, want)
			}
			want = fmt.Sprintf("unknown trigger %q (one of manual, scheduled, self, director)", asked)
			if _, err := agent.ParseTrigger(asked); err == nil || err.Error() != want {
				t.Errorf("got %v\nwant %s", err, want)
			}
		})
	}
}
