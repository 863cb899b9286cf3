package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/wire"
)

// holdable puts a script before the CPI that holds a call which the test names: before
// it is told to the CPI, and after the CPI has done it.
func (d *database) holdable() {
	d.t.Helper()
	d.must(os.WriteFile(d.cpi, []byte(`#!/bin/sh
hold() {
	mv `+d.dir+`/hold.$1 `+d.dir+`/held.$1 2>/dev/null || return
	while [ -e `+d.dir+`/held.$1 ]; do sleep 0.02; done
}
request=$(cat)
method=${request#*\"method\":\"}
method=${method%%\"*}
case "$request" in *'"arguments":["",""]'*) method=asked;; esac # what it can do
hold $method-told
answer=$(printf %s "$request" | `+filepath.Join(binaries, "local-cpi")+`)
hold $method-done
printf '%s\n' "$answer"
`), 0o755))
}

// killedIn kills the daemon while the CPI is held in a call of a restore, and starts
// another. It returns the report of the restore.
func (d *database) killedIn(call, cid string) wire.Report {
	d.t.Helper()
	d.touch("hold." + call)
	verb := d.begin("restore", cid, "--yes", "--json")
	d.await("the CPI is held", func() bool { return d.exists("held." + call) })
	d.kill()
	verb()
	d.must(os.Remove(filepath.Join(d.dir, "held."+call)))
	d.start()
	d.await("the restore is reported", func() bool { r := d.runs(); return r[0].Restore != nil && d.status().Work == "" })
	return d.runs()[0]
}

func (d *database) status() api.Status {
	d.t.Helper()
	var s api.Status
	d.must(json.Unmarshal([]byte(d.run("status", "--json").out), &s))
	return s
}

// mustHaveInPlace asserts by the world which disk is there, once and whole, and that the
// server runs on it.
func (d *database) mustHaveInPlace(r wire.Report, side string, precious bool) {
	d.t.Helper()
	if r.Restore == nil || r.Restore.Side != side {
		d.t.Fatalf("the report is %+v, %+v", r, r.Restore)
	}
	d.await("the supervisor says that the server runs", d.serverRuns)
	d.await("the server answers", func() bool { _, err := trySQL(d.sockets(), "SELECT 1"); return err == nil })
	if got := d.sql(d.sockets(), "SELECT to_regclass('precious') IS NOT NULL"); (got == "t") != precious {
		d.t.Errorf("the dropped table is there: %s", got)
	}
	if precious {
		if got := d.sql(d.sockets(), "SELECT count(*), sum(n) FROM precious"); got != "1000|500500" {
			d.t.Errorf("the table has %s", got)
		}
	}
	d.asPostgres("pg_amcheck", "-h", d.sockets(), "--heapallindexed", "postgres")
	out, err := exec.Command("findmnt", "--noheadings", "--output", "FSTYPE", d.store).Output()
	if err != nil || strings.Count(string(out), "\n") != 1 {
		d.t.Errorf("mounted at the disk's place: %q, %v", out, err)
	}
	if left := d.status().NotGoing; len(left) > 0 {
		d.t.Errorf("not going: %q", left)
	}
}

// mustBeKept asserts that a disk is there, whole and attached to nothing.
func (d *database) mustBeKept(cid string) {
	d.t.Helper()
	image := filepath.Join(d.root, "disks", cid+".img")
	if out, err := exec.Command("losetup", "--associated", image).Output(); err != nil || len(out) > 0 {
		d.t.Errorf("the disk that is kept is attached: %s, %v", out, err)
	}
	if out, err := exec.Command("xfs_repair", "-n", image).CombinedOutput(); err != nil {
		d.t.Errorf("the disk that is kept: %v\n%s", err, out)
	}
}

func TestPostgreSQLIsRestored(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "xfs")
	d.holdable()
	d.superviseByMonit()
	d.await("the supervisor says that the server runs", d.serverRuns)
	d.await("the server answers", func() bool { _, err := trySQL(d.sockets(), "SELECT 1"); return err == nil })
	d.sql(d.sockets(), "CREATE EXTENSION amcheck; CREATE TABLE precious AS SELECT generate_series(1, 1000) AS n")
	d.thawAfter(safetyThawOfRun)
	_, taken := d.take("--level", "freeze")
	cid := taken.Disks[0].SnapshotCID
	drop := func() { d.sql(d.sockets(), "DROP TABLE precious") }

	drop()
	d.mustSay(d.run("restore", cid, "--dry-run"), exitOK, "make disk", "stop", "postgres", "swap", "nothing was done")
	d.mustSay(d.run("restore", cid), exitUsage, "not confirmed")
	r := d.run("restore", cid, "--yes", "--json")
	d.mustSay(r, exitOK)
	report := d.report(r)
	d.mustHaveInPlace(report, "restored", true)
	d.mustBeKept(report.Restore.Other)
	d.mustSay(d.run("status"), exitOK, "Disk disk-1 has the data of snapshot "+cid, "kept as "+report.Restore.Other)
	d.mustSay(d.run("snapshots", "--json"), exitOK, "the disk before is kept as "+report.Restore.Other)
	t.Logf("postgres: restored, seconds: %v", report.Seconds)

	drop()
	d.mustHaveInPlace(d.killedIn("detach_disk-told", cid), "before", false)

	report = d.killedIn("swap_disks-done", cid)
	d.mustHaveInPlace(report, "restored", true)
	d.mustBeKept(report.Restore.Other)
	_, again := d.take("--level", "stop")
	if !again.Clean {
		t.Errorf("the next snapshot is %+v", again)
	}
}
