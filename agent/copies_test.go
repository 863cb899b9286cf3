package agent_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/quiesce"
)

// shelf keeps copies in memory, by mount.
type shelf struct {
	mu     sync.Mutex
	copies map[string]agent.Copy // guarded by mu
	aside  []string              // guarded by mu: what was kept aside, and of which journal the copy was
	err    error                 // guarded by mu: of reading, in place of a copy
	full   bool                  // guarded by mu: nothing can be written
	hangs  bool                  // guarded by mu: writing takes until nobody waits for it any more
	stuck  error                 // guarded by mu
	writes int                   // guarded by mu
}

func newShelf() *shelf { return &shelf{copies: map[string]agent.Copy{}} }

func (s *shelf) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *shelf) Read(_ context.Context, at agent.Place) (agent.Copy, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.copies[at.Mount]
	switch {
	case s.err != nil:
		return agent.Copy{}, s.err
	case !ok:
		return agent.Copy{}, agent.ErrNoCopy
	}
	return found, nil
}

func (s *shelf) Write(ctx context.Context, at agent.Place, c agent.Copy, aside string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	if s.hangs {
		s.mu.Unlock()
		<-ctx.Done()
		s.mu.Lock()
		return context.Cause(ctx)
	}
	if s.full {
		return errFull
	}
	if aside != "" {
		s.aside = append(s.aside, s.copies[at.Mount].Journal+" "+aside)
	}
	s.copies[at.Mount] = c
	return nil
}

func (s *shelf) Stuck() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stuck
}

// cids are those of the copy on a mount, "none" if there is no copy.
func (s *shelf) cids(mount string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.copies[mount]
	if !ok {
		return "none"
	}
	var cids []string
	for _, one := range c.Snapshots {
		cids = append(cids, one.CID)
	}
	return strings.Join(cids, " ")
}

// copying is an instance whose catalogue is copied to a shelf.
func copying(t *testing.T, change ...func(*agent.Settings)) (*instance, *shelf) {
	t.Helper()
	in, s := newInstance(t, change...), newShelf()
	in.Agent.Copies = s
	return in, s
}

func (s *shelf) want(t *testing.T, mount, cids string) {
	t.Helper()
	if got := s.cids(mount); got != cids {
		t.Errorf("the copy on %s has %q, want %q", mount, got, cids)
	}
}

func TestCatalogueIsCopiedAfterEachChange(t *testing.T) {
	in, s := copying(t)
	in.Agent.CopyOut(t.Context())
	s.want(t, in.Mount, "none") // of nothing
	in.take(agent.LevelFreeze)
	in.Agent.CopyOut(t.Context())
	s.want(t, in.Mount, "snap-1")
	in.must(in.Agent.SetVerified("snap-1", agent.Verification{OK: true}))
	in.Agent.CopyOut(t.Context())
	writes := s.writes
	in.Agent.CopyOut(t.Context())
	if s.writes != writes || s.copies[in.Mount].Snapshots[0].Verified == nil || s.copies[in.Mount].Journal != in.Agent.Journal.ID() {
		t.Errorf("written %d times, and %d before; the copy is %+v", s.writes, writes, s.copies)
	}
	_, err := in.Agent.Delete(t.Context(), "snap-1")
	in.must(err)
	in.Agent.CopyOut(t.Context())
	s.want(t, in.Mount, "")
}

func TestNothingIsCopiedWhileARunGoesOn(t *testing.T) {
	in, s := copying(t)
	in.take(agent.LevelNone)
	in.Hold(t, "snapshot_disk")
	run, err := in.Agent.Take(t.Context(), agent.Request{Level: agent.LevelFreeze})
	in.must(err)
	in.AwaitCall(t, "snapshot_disk", 2)
	in.Agent.CopyOut(t.Context())
	if s.writes != 0 {
		t.Error("it is copied while something is frozen")
	}
	in.Release(t, "snapshot_disk")
	<-run.Done()
	in.idle()
	in.Agent.CopyOut(t.Context())
	s.want(t, in.Mount, "snap-1 snap-2")
}

func TestCopyingMakesWayForARunAndIsMadeUpFor(t *testing.T) {
	in, s := copying(t)
	in.take(agent.LevelNone)
	s.set(func() { s.hangs = true })
	copied := make(chan struct{})
	go func() { in.Agent.CopyOut(t.Context()); close(copied) }()
	apitest.Eventually(t, "the copy is being written", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.writes == 1
	})
	if report := in.take(agent.LevelFreeze); report.Outcome != agent.OutcomeSucceeded {
		t.Errorf("the run: %+v", report)
	}
	<-copied
	s.set(func() { s.hangs = false })
	in.Agent.CopyOut(t.Context())
	s.want(t, in.Mount, "snap-1 snap-2")
}

func TestNothingIsFrozenWhileACopyMayBeWritten(t *testing.T) {
	in, s := copying(t)
	s.set(func() { s.stuck = errors.New("process 7 does not end") })
	_, err := in.Agent.Take(t.Context(), agent.Request{Level: agent.LevelFreeze})
	if !errors.As(err, new(*agent.RefusedError)) || !strings.Contains(err.Error(), "process 7") {
		t.Errorf("level freeze: %v", err)
	}
	if report := in.take(agent.LevelNone); report.Outcome != agent.OutcomeSucceeded {
		t.Errorf("level none: %+v", report)
	}
	in.Agent.CopyOut(t.Context())
	s.want(t, in.Mount, "none")
	s.set(func() { s.stuck = nil })
	in.Agent.CopyOut(t.Context())
	s.want(t, in.Mount, "snap-1")
}

func TestWhatALostJournalKnewIsAdoptedFromTheDisk(t *testing.T) {
	ours := agent.Instance{Deployment: "cf", Job: "db", Index: 7, ID: "inst-1", AgentID: "another"}
	old := agent.Copy{Journal: "old", Instance: ours, Snapshots: []agent.Snapshot{
		{CID: "snap-old", RunID: "run-old", DiskCID: "disk-1", State: agent.SnapshotKnown, Clean: true, Held: true, Note: "dirty"},
		{RunID: "run-lost", DiskCID: "disk-1", State: agent.SnapshotUnresolved},
		{CID: "snap-half", RunID: "run-half", DiskCID: "disk-1", State: agent.SnapshotDeleting},
		{CID: "snap-1", RunID: "run-other", DiskCID: "disk-1", State: agent.SnapshotKnown}, // a CID that is known
	}}
	for name, c := range map[string]struct {
		change func(in *instance, s *shelf, old *agent.Copy)
		want   string // CIDs that are known then
		aside  []string
		kept   bool // the copy stays as it was
	}{
		"by another index and agent id":      {func(*instance, *shelf, *agent.Copy) {}, " snap-1 snap-half snap-old", nil, false},
		"but not of the same journal":        {func(in *instance, _ *shelf, old *agent.Copy) { old.Journal = in.Agent.Journal.ID() }, "snap-1", nil, false},
		"but not of another instance":        {func(_ *instance, _ *shelf, old *agent.Copy) { old.Instance.ID = "inst-2" }, "snap-1", []string{"old of-another-instance"}, false},
		"but not of another deployment":      {func(_ *instance, _ *shelf, old *agent.Copy) { old.Instance.Deployment = "x" }, "snap-1", []string{"old of-another-instance"}, false},
		"but not if it makes no sense":       {func(_ *instance, s *shelf, _ *agent.Copy) { s.err = agent.ErrBadCopy }, "snap-1", []string{"old unreadable"}, false},
		"but later if it cannot be read now": {func(_ *instance, s *shelf, _ *agent.Copy) { s.err = errors.New("input/output error") }, "snap-1", nil, true},
		"but later if it cannot be recorded now": {func(in *instance, _ *shelf, _ *agent.Copy) {
			breakable(in.Daemon).full.Store(true)
		}, "snap-1", nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			in, s := copying(t)
			in.take(agent.LevelNone)
			before := old
			before.Snapshots = slices.Clone(old.Snapshots)
			c.change(in, s, &before)
			s.copies[in.Mount] = before
			in.Agent.FindCopies(t.Context())
			in.Agent.CopyOut(t.Context())
			all := snapshots(t, in.Agent)
			var cids []string
			for cid, one := range all {
				cids = append(cids, cid)
				if cid != "snap-1" && !strings.Contains(one.Note, "found in the catalogue's copy on disk disk-1") {
					t.Errorf("%q says %q of where it is from", cid, one.Note)
				}
			}
			slices.Sort(cids)
			if got := strings.Join(cids, " "); got != c.want {
				t.Errorf("known are %q, want %q", got, c.want)
			}
			if diff := cmp.Diff(c.aside, s.aside, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("put aside, -want +got:\n%s", diff)
			}
			if kept := s.copies[in.Mount].Journal == "old"; kept != c.kept {
				t.Errorf("the copy is of journal %q", s.copies[in.Mount].Journal)
			}
			if strings.Contains(c.want, "snap-old") && (!all["snap-old"].Held || all["snap-half"].State != agent.SnapshotDeleting || all[""].State != agent.SnapshotUnresolved) {
				t.Errorf("the entries are not as they were: %+v", all)
			}
		})
	}
}

func TestInstanceWithoutAnIDIsKnownByItsIndex(t *testing.T) {
	for index, want := range map[int]int{2: 1, 3: 0} {
		in, s := copying(t, func(s *agent.Settings) { s.Instance.ID = "" })
		s.copies[in.Mount] = agent.Copy{
			Journal: "old", Instance: agent.Instance{Deployment: "cf", Job: "db", Index: index},
			Snapshots: []agent.Snapshot{{CID: "snap-old", RunID: "run-old", DiskCID: "disk-1", State: agent.SnapshotKnown}},
		}
		in.Agent.FindCopies(t.Context())
		if n := len(snapshots(t, in.Agent)); n != want {
			t.Errorf("index %d: %d are adopted", index, n)
		}
	}
}

func TestDiskThatComesLaterIsReadAndWrittenThen(t *testing.T) {
	var mu sync.Mutex
	attached := false
	var disks []quiesce.Disk
	in, s := copying(t, func(s *agent.Settings) {
		disks = s.Disks
		s.Attached = func() ([]quiesce.Disk, error) {
			mu.Lock()
			defer mu.Unlock()
			if attached {
				return disks, nil
			}
			return nil, nil
		}
	})
	s.copies[in.Mount] = agent.Copy{
		Journal: "old", Instance: in.Agent.Settings.Instance,
		Snapshots: []agent.Snapshot{{CID: "snap-old", RunID: "run-old", DiskCID: "disk-1", State: agent.SnapshotKnown}},
	}
	in.Agent.FindCopies(t.Context())
	in.Agent.CopyOut(t.Context())
	if n := len(snapshots(t, in.Agent)); n != 0 || s.writes != 0 {
		t.Errorf("before: %d are known, %d writes", n, s.writes)
	}
	mu.Lock()
	attached = true
	mu.Unlock()
	in.Agent.CopyOut(t.Context())
	s.want(t, in.Mount, "snap-old")
	if n := len(snapshots(t, in.Agent)); n != 1 || s.copies[in.Mount].Journal == "old" {
		t.Errorf("after: %d are known, the copy is %+v", n, s.copies[in.Mount])
	}
}

func TestCopyThatFailsIsToldAndHoldsUpNothing(t *testing.T) {
	in, s := copying(t)
	s.set(func() { s.full = true })
	in.take(agent.LevelFreeze)
	for range 3 {
		in.Agent.CopyOut(t.Context()) // it waits before it tries again
	}
	status, err := in.Agent.Status()
	in.must(err)
	if len(status.Copies) != 1 || status.Copies[0].Current || !errors.Is(status.Copies[0].Err, errFull) || status.CopiesFailed != 1 || s.writes != 1 {
		t.Errorf("after %d writes: %s", s.writes, fmt.Sprintf("%+v", status.Copies))
	}
	if report := in.take(agent.LevelFreeze); report.Outcome != agent.OutcomeSucceeded {
		t.Errorf("the next run: %+v", report)
	}
}
