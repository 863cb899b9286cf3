package faults_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
)

// snapshot takes one of the version that there is, and writes the next.
func (b *restoreBed) snapshot() (cid string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	id, err := b.vm.client.Take(ctx, agent.Request{Level: agent.LevelFreeze, Wait: true})
	if err != nil {
		return "", err
	}
	report, err := b.vm.client.Report(ctx, id)
	if err != nil || !report.Clean {
		return "", fmt.Errorf("no clean snapshot: %+v: %w", report, err)
	}
	return report.Disks[0].SnapshotCID, b.write()
}

// begin asks for a restore. Nobody waits for the answer: the daemon may be killed before.
func (b *restoreBed) begin(cid, id string) {
	b.id = id
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, _ = b.vm.client.Restore(ctx, agent.RestoreRequest{CID: cid, ID: id})
	}()
}

// heldAt begins to restore a snapshot once it is prepared, and returns when the daemon is
// held at a point.
func (b *restoreBed) heldAt(t *testing.T, point string, prepare ...func() error) (cid string) {
	t.Helper()
	cid, err := b.snapshot()
	err = errors.Join(err, b.arm(point))
	for _, do := range prepare {
		err = errors.Join(err, do())
	}
	if err != nil {
		t.Fatal(err)
	}
	b.begin(cid, agent.NewID())
	if err := b.awaitHit(point, patience); err != nil {
		t.Fatal(err)
	}
	return cid
}

// kill kills the daemon and starts another.
func (b *restoreBed) kill() error {
	_ = b.daemon.Process.Kill()
	<-b.ended
	return b.start()
}

// cutOff kills the daemon, and lets go on what is left of it.
func (b *restoreBed) cutOff() {
	_ = b.daemon.Process.Kill()
	<-b.ended
	b.letGo()
}

// report waits for that of a restore.
func (b *restoreBed) report(id string) (wire.Report, error) {
	found, err := b.reports(id, patience)
	if err != nil || len(found) != 1 {
		return wire.Report{}, fmt.Errorf("there are %d reports of the restore: %w", len(found), err)
	}
	if found[0].Restore == nil {
		return wire.Report{}, fmt.Errorf("the report is no restore's: %+v", found[0])
	}
	return found[0], nil
}
