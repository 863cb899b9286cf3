package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/httpapi"
	"github.com/quiesced/quiesced/agent/natsapi"
)

// ioctls of linux/fs.h.
const (
	fiFreeze = 0xC0045877
	fiThaw   = 0xC0045878
)

// atOnce is a CPI that answers as soon as it has its last byte. It uses nothing
// but what the shell has built in.
const atOnce = `#!/bin/sh
IFS= read -r request
case "$request" in
*'"method":"info"'*) echo '{"result":{"api_version":2,"stemcell_formats":[]},"error":null,"log":""}';;
*) echo '{"result":"snap-'$$'","error":null,"log":""}';;
esac
`

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// BenchmarkFreeze compares the time for which a run holds a filesystem, around a
// CPI that answers at once, with that of a bare FIFREEZE and FITHAW of the same
// filesystem, turn by turn.
func BenchmarkFreeze(b *testing.B) {
	w := newWorld(b, with("budgets: {frozen: 5s}\n"))
	w.cpi = filepath.Join(w.dir, "cpi")
	w.must(writeProgram(w.cpi, atOnce))
	w.start()
	client := api.Client{Caller: httpapi.NewClient(filepath.Join(w.dir, "run", "q.sock"))}
	mount, err := os.Open(w.store)
	w.must(err)
	defer func() { _ = mount.Close() }()
	var bare, ours, ratio []float64
	for b.Loop() {
		one := barePair(w, mount)
		id, err := client.Take(context.Background(), agent.Request{Level: agent.LevelFreeze})
		w.must(err)
		report, err := client.Report(context.Background(), id)
		w.must(err)
		if !report.Clean {
			b.Fatalf("not clean: %+v", report)
		}
		two := report.Seconds["frozen"]
		bare, ours, ratio = append(bare, one*1e6), append(ours, two*1e6), append(ratio, two/one)
	}
	b.ReportMetric(median(bare), "bare-µs")
	b.ReportMetric(median(ours), "frozen-µs")
	b.ReportMetric(median(ratio), "frozen/bare")
}

// barePair freezes and thaws as a program without any of ours would, and is the
// seconds that took. What is dirty is written out before, as in a run.
func barePair(w *world, mount *os.File) float64 {
	fd := int(mount.Fd())
	w.must(unix.Syncfs(fd))
	began := time.Now()
	w.must(unix.IoctlSetInt(fd, fiFreeze, 0))
	w.must(unix.IoctlSetInt(fd, fiThaw, 0))
	return time.Since(began).Seconds()
}

// bus starts a NATS server for a benchmark.
func bus(b *testing.B) string {
	b.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		b.Fatal(err)
	}
	s.Start()
	b.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		b.Fatal("the bus does not start")
	}
	return "nats://" + s.Addr().String()
}

// onBus starts a daemon on a bus and is a client of it, with its connection.
func onBus(b *testing.B) (*world, *nats.Conn, api.Client) {
	b.Helper()
	url := bus(b)
	w := newWorld(b, with(fmt.Sprintf("nats: {urls: [%q]}\n", url)))
	w.start()
	conn, err := nats.Connect(url)
	w.must(err)
	b.Cleanup(conn.Close)
	config := natsapi.Config{Subject: "agent.agent-1", Prefix: "quiesced_", AgentID: "agent-1"}
	client := api.Client{Caller: natsapi.NewClient(conn, config, "director-1")}
	w.eventually("the daemon is on the bus", func() bool {
		_, err := client.Info(context.Background())
		return err == nil
	})
	return w, conn, client
}

// BenchmarkDirectorInfo compares a director's info with a bare request and reply
// over the same bus, turn by turn.
func BenchmarkDirectorInfo(b *testing.B) {
	w, conn, client := onBus(b)
	_, err := conn.Subscribe("echo", func(m *nats.Msg) { _ = m.Respond(m.Data) })
	w.must(err)
	var bare, ours, ratio []float64
	for b.Loop() {
		began := time.Now()
		_, err := conn.Request("echo", []byte("{}"), patience)
		w.must(err)
		one := time.Since(began).Seconds()
		began = time.Now()
		_, err = client.Info(context.Background())
		w.must(err)
		two := time.Since(began).Seconds()
		bare, ours, ratio = append(bare, one*1e6), append(ours, two*1e6), append(ratio, two/one)
	}
	b.ReportMetric(median(bare), "bare-µs")
	b.ReportMetric(median(ours), "info-µs")
	b.ReportMetric(median(ratio), "info/bare")
}

// BenchmarkIdleRSS is the memory of a daemon on a bus that has taken a snapshot
// and then has nothing to do.
func BenchmarkIdleRSS(b *testing.B) {
	w, _, _ := onBus(b)
	if r, _ := w.take(); r.code != exitOK {
		b.Fatalf("%+v", r)
	}
	time.Sleep(2 * time.Second)
	for b.Loop() {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.daemon.Process.Pid))
		w.must(err)
		for line := range strings.Lines(string(status)) {
			var kib float64
			if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kib); n == 1 {
				b.ReportMetric(kib/1024, "MiB-RSS")
			}
		}
	}
}
