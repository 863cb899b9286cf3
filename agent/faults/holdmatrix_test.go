package faults_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/wire"
)

// heldDisk is the disk of every case.
const heldDisk = "disk-1"

// hold is a director's side of a hold: it takes the snapshot once the instance is at
// rest, keeps a list of those that it took, as the CPI does, and tells of it until
// somebody hears it.
func (v *vm) hold(ctx context.Context, id string) error {
	_, err := v.client.Quiesce(ctx, agent.Request{
		ID: id, Level: v.bed.kind.level, Disks: []string{heldDisk}, Lease: 5 * time.Second, Wait: true,
	})
	if x := (*api.Error)(nil); errors.As(err, &x) && x.Report != nil {
		return nil // it is over
	}
	if err != nil {
		return v.told(ctx, id, wire.HoldEnd{Error: "given up"})
	}
	began := time.Now().UnixNano()
	time.Sleep(20 * time.Millisecond)
	cid := fmt.Sprintf("snap-%s-%d", id, began)
	if err := v.note("made", fmt.Sprintln(cid, began, time.Now().UnixNano())); err != nil {
		return err
	}
	if err := v.told(ctx, id, wire.HoldEnd{Snapshots: map[string]string{heldDisk: cid}}); err != nil {
		return err
	}
	return v.note("answered", cid+"\n")
}

// told tells how a hold ended until somebody has heard it. A hold that is not known
// has lost its record, or never had one.
func (v *vm) told(ctx context.Context, id string, end wire.HoldEnd) error {
	for {
		_, err := v.client.Resume(ctx, id, end)
		switch api.KindOf(err) {
		case api.KindUnreachable, api.KindBusy:
		case api.KindInvalid:
			if v.lost || len(end.Snapshots) == 0 {
				return nil
			}
			return fmt.Errorf("THE HOLD IS FORGOTTEN: %w", err)
		default:
			if err == nil {
				return nil
			}
			return fmt.Errorf("cannot end the hold: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot end the hold: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// note adds to a list that a CPI would keep.
func (v *vm) note(list, line string) error {
	f, err := os.OpenFile(filepath.Join(v.dir, list), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}

// holding are the boundaries of a hold: those of a run, but for its CPI's.
var holding = func() (all []boundary) {
	for _, b := range boundaries {
		b.there &^= cpi
		switch {
		case slices.Contains([]string{"armed", "cpi-told", "cpi-made", "cpi-midway", "cpi-answered"}, b.point):
			continue
		case b.point == "unreported":
			all = append(all, boundary{"holder-unanswered", daemon}, boundary{"holder-answered", daemon})
		}
		all = append(all, b)
	}
	return all
}()

func TestMatrixOfHolds(t *testing.T) {
	pool := newBeds(t)
	for i, b := range holding {
		cases := slices.DeleteFunc(b.cases(), func(s step) bool { return s.fault == starved }) // as in any other run
		for _, s := range thinned(i, cases) {
			pool.playHold(t, kind{fstype: "ext4", level: agent.LevelFreeze, holds: true}, s)
		}
	}
	points := append(slices.Clone(stopping), "holder-unanswered", "holder-answered")
	for i, f := range []fault{killed, lost, ended} {
		for _, point := range thinned(i, thinned(0, sampled(points))) {
			if point == "cpi-made" {
				point = "told"
			}
			pool.playHold(t, kind{fstype: "ext4", level: agent.LevelStop, holds: true}, step{at: point, fault: f, who: daemon})
		}
	}
}

func (p *beds) playHold(t *testing.T, k kind, s step) {
	t.Helper()
	t.Run(k.String()+": "+s.String(), func(t *testing.T) {
		t.Parallel()
		p.play(t, k, []step{s})
	})
}
