package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/wire"
)

// director plays the director's part.
type director struct {
	stage  *stage
	bus    *server.Server
	daemon *daemon
	writer *writer
}

// snapshot is what the director knows after it has taken one.
type snapshot struct {
	report wire.Report
	cid    string
	before int // the last record acknowledged before the request was sent
}

// takeSnapshot sends the request and asks for its task until it has ended.
func (d *director) takeSnapshot(ctx context.Context) (*snapshot, error) {
	caller, closeConn, err := connect(d.bus)
	if err != nil {
		return nil, err
	}
	defer closeConn()
	client := api.Client{Caller: caller}
	request := agent.Request{ID: agent.NewID(), Level: agent.LevelFreeze}
	s := d.stage
	s.say("4. The director asks: agent.%s", agentID)
	s.show(`{"protocol":3,"method":"quiesced_take_snapshot","arguments":[%s],"reply_to":"director.%s.%s.…"}`,
		compact(wire.FromRequest(request)), directorUUID, agentID)

	taken := &snapshot{before: d.writer.acknowledged()}
	id, err := client.Take(ctx, request)
	if err != nil {
		return nil, err
	}
	s.show("-> %s", compact(map[string]any{"value": api.Task{ID: id, State: "running"}}))
	if taken.report, err = client.Report(ctx, id); err != nil {
		return nil, err
	}
	d.letWrite(ctx)
	s.say("5. The report")
	d.printReport(taken.report)
	if len(taken.report.Disks) != 1 || taken.report.Disks[0].SnapshotCID == "" {
		return nil, errors.New("the report names no snapshot")
	}
	taken.cid = taken.report.Disks[0].SnapshotCID
	return taken, nil
}

// letWrite gives the writer time to show that it goes on.
func (d *director) letWrite(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(200 * time.Millisecond):
	}
}

func (d *director) printReport(r wire.Report) {
	samples := len(r.Metrics)
	r.Metrics = nil
	text, _ := json.MarshalIndent(r, "", "  ")
	d.stage.show("%s", text)
	d.stage.show("and %d samples of this run's metrics", samples)
	d.stage.show("the application's longest wait meanwhile: %s", d.writer.longestWait().Round(10*time.Microsecond))
}

// deleteSnapshot has the snapshot deleted, and looks that it is gone.
func (d *director) deleteSnapshot(ctx context.Context, taken *snapshot) error {
	caller, closeConn, err := connect(d.bus)
	if err != nil {
		return err
	}
	defer closeConn()
	if _, err := (api.Client{Caller: caller}).Delete(ctx, taken.cid); err != nil {
		return err
	}
	if _, err := os.Stat(d.stage.image("snapshots", taken.cid)); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("snapshot %s was deleted and its image is still there", taken.cid)
	}
	d.stage.say("8. The snapshot is deleted, and the disk has written on all the time: %d records", d.writer.acknowledged())
	return nil
}

func compact(v any) string {
	text, _ := json.Marshal(v)
	return string(text)
}
