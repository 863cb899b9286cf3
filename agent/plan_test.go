package agent_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/quiesce"
)

var budgets = agent.Budgets{PreSync: 1 * time.Second, Frozen: 2 * time.Second, Snapshot: 3 * time.Second, Resume: 4 * time.Second}

// Filesystems as a survey finds them.
var (
	store    = quiesce.Filesystem{Path: "/store", Type: "ext4", Disks: []string{"vol-1"}, Configured: true, Rank: 0}
	more     = quiesce.Filesystem{Path: "/more", Type: "xfs", Disks: []string{"vol-2"}, Configured: true, Rank: 1}
	beside   = quiesce.Filesystem{Path: "/beside", Type: "xfs", Disks: []string{"vol-1"}}
	readOnly = quiesce.Filesystem{Path: "/ro", Type: "ext4", Disks: []string{"vol-1"}, Configured: true, ReadOnly: true}
	root     = quiesce.Filesystem{Path: "/", Type: "ext4", Disks: []string{"vol-1"}, Configured: true, Root: true}
	rootToo  = quiesce.Filesystem{Path: "/", Type: "ext4", Disks: []string{"vol-1"}, Root: true}
	vfat     = quiesce.Filesystem{Path: "/efi", Type: "vfat", Disks: []string{"vol-1"}, Configured: true}
	vfatToo  = quiesce.Filesystem{Path: "/efi", Type: "vfat", Disks: []string{"vol-1"}}
	tmpfs    = quiesce.Filesystem{Path: "/tmp", Type: "tmpfs", Disks: []string{"vol-1"}, Configured: true}
)

const (
	vfatReason  = `cannot freeze "/efi": a filesystem of type vfat cannot be held by freezing it`
	tmpfsReason = `cannot freeze "/tmp": a filesystem of type tmpfs cannot be held by freezing it`
	tmpfsOpened = `cannot write out "/tmp": a filesystem of type tmpfs is never opened`
	stopReason  = "no supervisor"
	lockReason  = "a cycle of locks"
)

// decide plans for both disks at a level.
func decide(level agent.Level, degrade bool, fs ...quiesce.Filesystem) (*agent.Plan, error) {
	s := settings()
	s.Budgets = budgets
	on := &quiesce.Contents{Filesystems: fs}
	in := &agent.Inventory{CannotStop: errors.New(stopReason), CannotLock: errors.New(lockReason)}
	return agent.NewPlan(agent.Request{Level: level, AllowDegrade: degrade}, s, s.Disks, on, in)
}

func TestPlanListsItsActionsInTheOrderInWhichTheyHappen(t *testing.T) {
	start := []agent.Action{{Kind: agent.ActStartCPI, Target: "vol-1", Budget: time.Second}, {Kind: agent.ActStartCPI, Target: "vol-2", Budget: time.Second}}
	write := []agent.Action{{Kind: agent.ActWriteOut, Target: "/store", Budget: time.Second}, {Kind: agent.ActWriteOut, Target: "/more", Budget: time.Second}}
	freeze := []agent.Action{{Kind: agent.ActFreeze, Target: "/store", Budget: 2 * time.Second}, {Kind: agent.ActFreeze, Target: "/more", Budget: 2 * time.Second}}
	snapshot := []agent.Action{{Kind: agent.ActSnapshot, Target: "vol-1", Budget: 3 * time.Second}, {Kind: agent.ActSnapshot, Target: "vol-2", Budget: 3 * time.Second}}
	join := func(parts ...[]agent.Action) (all []agent.Action) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	for level, want := range map[agent.Level][]agent.Action{
		agent.LevelNone:   join(start, snapshot),
		agent.LevelSync:   join(start, write, snapshot),
		agent.LevelFreeze: join(start, write, freeze, snapshot),
	} {
		t.Run(string(level), func(t *testing.T) {
			got, err := decide(level, false, store, more)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got.Actions); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestActionsKnowTheirUndo(t *testing.T) {
	got := map[agent.ActionKind]string{}
	for _, kind := range []agent.ActionKind{agent.ActStartCPI, agent.ActWriteOut, agent.ActFreeze, agent.ActSnapshot} {
		got[kind] = agent.Action{Kind: kind}.Undo()
	}
	want := map[agent.ActionKind]string{
		agent.ActStartCPI: "end the process unless it was told to go on", agent.ActFreeze: "thaw", agent.ActWriteOut: "", agent.ActSnapshot: "",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPlanReachesTheLevelThatItsFilesystemsAllow(t *testing.T) {
	for name, c := range map[string]struct {
		asked       agent.Level
		degrade     bool
		filesystems []quiesce.Filesystem
		want        agent.Plan // without disks and actions
		freezes     bool
	}{
		"none needs no filesystem": {
			asked: agent.LevelNone, filesystems: []quiesce.Filesystem{store, root},
			want: agent.Plan{Asked: agent.LevelNone, Level: agent.LevelNone},
		},
		"sync writes out what cannot be frozen": {
			asked: agent.LevelSync, filesystems: []quiesce.Filesystem{root, vfat},
			want: agent.Plan{Asked: agent.LevelSync, Level: agent.LevelSync, Filesystems: []quiesce.Filesystem{root, vfat}},
		},
		"sync of what is never opened becomes none": {
			asked: agent.LevelSync, degrade: true, filesystems: []quiesce.Filesystem{store, tmpfs},
			want: agent.Plan{Asked: agent.LevelSync, Level: agent.LevelNone, Degraded: tmpfsOpened},
		},
		"freeze of the root filesystem, if configured": {
			asked: agent.LevelFreeze, filesystems: []quiesce.Filesystem{root},
			want:    agent.Plan{Asked: agent.LevelFreeze, Level: agent.LevelFreeze, Filesystems: []quiesce.Filesystem{root}},
			freezes: true,
		},
		"freeze holds what lies beside, but not the root filesystem nor what cannot be frozen": {
			asked: agent.LevelFreeze, filesystems: []quiesce.Filesystem{store, beside, rootToo, vfatToo},
			want: agent.Plan{
				Asked: agent.LevelFreeze, Level: agent.LevelFreeze, Filesystems: []quiesce.Filesystem{store, beside},
				Notes: []string{rootToo.PassedOver(), vfatToo.PassedOver()},
			},
			freezes: true,
		},
		"freeze holds two disks, ranks kept": {
			asked: agent.LevelFreeze, filesystems: []quiesce.Filesystem{store, more},
			want:    agent.Plan{Asked: agent.LevelFreeze, Level: agent.LevelFreeze, Filesystems: []quiesce.Filesystem{store, more}},
			freezes: true,
		},
		"freeze that could be lowered is not": {
			asked: agent.LevelFreeze, degrade: true, filesystems: []quiesce.Filesystem{store},
			want:    agent.Plan{Asked: agent.LevelFreeze, Level: agent.LevelFreeze, Filesystems: []quiesce.Filesystem{store}},
			freezes: true,
		},
		"freeze passes over what is read-only": {
			asked: agent.LevelFreeze, filesystems: []quiesce.Filesystem{readOnly, store},
			want: agent.Plan{
				Asked: agent.LevelFreeze, Level: agent.LevelFreeze, Filesystems: []quiesce.Filesystem{store},
				Notes: []string{"/ro is read-only: nothing to bring to rest"},
			},
			freezes: true,
		},
		"freeze of nothing but read-only freezes nothing": {
			asked: agent.LevelFreeze, filesystems: []quiesce.Filesystem{readOnly},
			want: agent.Plan{
				Asked: agent.LevelFreeze, Level: agent.LevelFreeze,
				Notes: []string{"/ro is read-only: nothing to bring to rest"},
			},
		},
		"freeze of what cannot be frozen becomes sync": {
			asked: agent.LevelFreeze, degrade: true, filesystems: []quiesce.Filesystem{store, vfat},
			want: agent.Plan{
				Asked: agent.LevelFreeze, Level: agent.LevelSync, Degraded: vfatReason,
				Filesystems: []quiesce.Filesystem{store, vfat},
			},
		},
		"stop becomes freeze where there are no jobs": {
			asked: agent.LevelStop, degrade: true, filesystems: []quiesce.Filesystem{store},
			want: agent.Plan{
				Asked: agent.LevelStop, Level: agent.LevelFreeze, Degraded: stopReason,
				Filesystems: []quiesce.Filesystem{store},
			},
			freezes: true,
		},
		"lock becomes freeze where there are no jobs": {
			asked: agent.LevelLock, degrade: true, filesystems: []quiesce.Filesystem{store},
			want: agent.Plan{
				Asked: agent.LevelLock, Level: agent.LevelFreeze, Degraded: lockReason,
				Filesystems: []quiesce.Filesystem{store},
			},
			freezes: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decide(c.asked, c.degrade, c.filesystems...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, *got, cmpopts.IgnoreFields(agent.Plan{}, "Disks", "Actions")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(settings().Disks, got.Disks); diff != "" {
				t.Errorf("disks, -want +got:\n%s", diff)
			}
			if got.Freezes() != c.freezes {
				t.Errorf("freezes is %t, want %t", got.Freezes(), c.freezes)
			}
		})
	}
}

func TestPlanIsLoweredAsFarAsIsNeeded(t *testing.T) {
	got, err := decide(agent.LevelStop, true, tmpfs)
	if err != nil {
		t.Fatal(err)
	}
	if got.Level != agent.LevelNone || !strings.Contains(got.Degraded, tmpfsReason+"; "+tmpfsOpened) {
		t.Errorf("got level %s, %q", got.Level, got.Degraded)
	}
}

func TestPlanThatCannotReachItsLevelIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		asked       agent.Level
		filesystems []quiesce.Filesystem
		message     string
	}{
		"stop without jobs":           {agent.LevelStop, []quiesce.Filesystem{store}, `level: cannot reach level "stop": ` + stopReason},
		"lock without jobs":           {agent.LevelLock, []quiesce.Filesystem{store}, `level: cannot reach level "lock": ` + lockReason},
		"freeze of a vfat":            {agent.LevelFreeze, []quiesce.Filesystem{store, vfat}, `level: cannot reach level "freeze": ` + vfatReason},
		"sync of a tmpfs":             {agent.LevelSync, []quiesce.Filesystem{store, tmpfs}, `level: cannot reach level "sync": ` + tmpfsOpened},
		"freeze of a tmpfs":           {agent.LevelFreeze, []quiesce.Filesystem{tmpfs}, `level: cannot reach level "freeze": ` + tmpfsReason},
		"freeze of both, names both:": {agent.LevelFreeze, []quiesce.Filesystem{vfat, tmpfs}, `level: cannot reach level "freeze": ` + vfatReason + "\n" + tmpfsReason},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decide(c.asked, false, c.filesystems...)
			wantRefused(t, err, "level", c.message)
		})
	}
}

func TestPlanTellsWhatTheSurveyNoticed(t *testing.T) {
	on := &quiesce.Contents{Filesystems: []quiesce.Filesystem{store}, Notes: []string{"swap is active"}}
	for level, want := range map[agent.Level][]string{agent.LevelFreeze: on.Notes, agent.LevelNone: nil} {
		t.Run(string(level), func(t *testing.T) {
			got, err := agent.NewPlan(agent.Request{Level: level}, settings(), settings().Disks, on, &agent.Inventory{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got.Notes); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestPlanOfAnInstanceWithoutDisksIsRefused(t *testing.T) {
	for _, level := range agent.Levels() {
		t.Run(string(level), func(t *testing.T) {
			_, err := agent.NewPlan(agent.Request{Level: level, AllowDegrade: true}, settings(), nil, nil, nil)
			wantRefused(t, err, "disks", "disks: this instance has no persistent disk")
		})
	}
}
