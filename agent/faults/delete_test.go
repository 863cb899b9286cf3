package faults_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
)

// deleting are the boundaries of a deletion.
var deleting = []string{"delete-unrecorded", "delete-recorded", "cpi-delete-told", "cpi-deleted", "delete-done", "delete-forgotten"}

// The daemon is killed at each boundary of a deletion. Unless nothing had been recorded,
// the next one goes on with it by itself. Nothing else is deleted, and nothing is lost.
func TestDeletionThatIsCutOffIsFinishedByTheNextDaemon(t *testing.T) {
	pool := newBeds(t)
	for _, point := range deleting {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			pool.use(t, kind{fstype: "ext4", level: agent.LevelFreeze}, func(v *vm) error { return v.cutDeletion(point) })
		})
	}
}

func (v *vm) cutDeletion(point string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	victim, other, err := v.takeTwo(ctx)
	if err != nil {
		return err
	}
	if err := v.arm(point); err != nil {
		return err
	}
	go func() { _, _ = v.client.Delete(ctx, victim) }()
	if err := v.inflict(step{at: point, fault: killed, who: daemon}, patience); err != nil {
		return err
	}
	<-v.ended
	if err := errors.Join(v.start(), v.answers()); err != nil {
		return err
	}
	kept := point == "delete-unrecorded"
	var left []wire.Snapshot
	err = eventually("the catalogue is as the CPI is", func() bool {
		left, err = v.client.Snapshots(ctx)
		return err == nil && (kept && len(left) == 2 || !kept && len(left) == 1)
	})
	deleted, _ := os.ReadDir(filepath.Join(v.dir, "deleted"))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %+v", err, left)
	case kept && len(deleted) > 0, !kept && (len(deleted) != 1 || deleted[0].Name() != victim):
		return fmt.Errorf("the CPI has deleted %v", deleted)
	}
	for _, s := range left {
		if s.State != "known" || s.CID != other && !kept {
			return fmt.Errorf("left are %+v", left)
		}
	}
	return nil
}

func (v *vm) takeTwo(ctx context.Context) (first, second string, err error) {
	var cids []string
	for range 2 {
		id, err := v.client.Take(ctx, agent.Request{Level: agent.LevelNone, Wait: true})
		if err != nil {
			return "", "", err
		}
		report, err := v.client.Report(ctx, id)
		if err != nil {
			return "", "", err
		}
		cids = append(cids, report.Disks[0].SnapshotCID)
	}
	return cids[0], cids[1], nil
}
