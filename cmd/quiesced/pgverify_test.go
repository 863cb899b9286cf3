package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// verifiesItself gives the job the script that the documentation has for PostgreSQL.
func (d *database) verifiesItself() {
	d.t.Helper()
	doc, err := os.ReadFile("../../docs/verify.md")
	d.must(err)
	_, script, found := strings.Cut(string(doc), "```sh\n")
	script, _, ended := strings.Cut(script, "```")
	if !found || !ended {
		d.t.Fatal("the documentation has no script")
	}
	script = strings.Replace(script, "set -e\n", "set -e\nPATH="+pgBin+":$PATH\n", 1)
	script = strings.ReplaceAll(script, "vcap", "postgres")
	at := filepath.Join(d.vcap, "jobs/postgres/bin/quiesced/verify")
	d.must(os.MkdirAll(filepath.Dir(at), 0o755))
	d.must(writeProgram(at, script))
	d.verifies = true
}

// mustVerify asserts what a verification finds of a snapshot.
func (d *database) mustVerify(cid string, good bool, texts ...string) {
	d.t.Helper()
	code := exitOK
	if !good {
		code = exitFailed
	}
	r, v := d.verify(cid)
	d.mustSay(r, code, texts...)
	if v.OK != good || v.How != "e2fsck, job postgres" {
		d.t.Errorf("verified as %+v", v)
	}
	d.mustBeClear()
}

// A server that does not sync, as some run for speed, leaves it to the kernel what reaches the
// disk and in which order. The kernel may write the rows of a table and not those of its index:
// that is played here.
func TestDatabaseThatCannotBeTrustedIsNotGood(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "ext4")
	d.verifiesItself()
	conf, err := os.OpenFile(filepath.Join(d.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	d.must(err)
	_, err = conf.WriteString("fsync = off\n")
	d.must(err)
	d.must(conf.Close())
	d.configure(with("processes: {root: " + d.vcap + "}\nbudgets: {verify: 5m}\n"))
	d.start()
	d.asPostgres("pg_ctl", "start", "-s", "-w", "-t", "120", "-D", d.data(), "-l", d.serverLog())
	t.Cleanup(func() { d.asPostgres("pg_ctl", "stop", "-s", "-w", "-m", "immediate", "-D", d.data()) })
	d.fill()
	c := startCrowd(d)
	d.sql(d.sockets(), "CREATE TABLE book (page int PRIMARY KEY); INSERT INTO book SELECT generate_series(1, 10000); CHECKPOINT")
	d.must(exec.Command("sync", "-f", d.store).Run())
	c.goOn()

	d.sql(d.sockets(), "INSERT INTO book SELECT generate_series(10001, 30000)")
	d.sql(d.sockets(), "CHECKPOINT")
	book := d.sql(d.sockets(), "SELECT pg_relation_filepath('book')")
	d.must(exec.Command("sh", "-c", `cd "$0" && sync "$1" pg_xact/* global/pg_control $(find pg_wal -type f)`, d.data(), book).Run())
	_, report := d.take("--level", "none")
	if report.Clean || report.Outcome != "succeeded" {
		t.Fatalf("the report is %+v", report)
	}
	d.mustVerify(report.Disks[0].SnapshotCID, false, "verify of job", "lacks matching index tuple")
	for _, s := range d.snapshots() {
		if s.Clean || s.Verified == nil || s.Verified.OK {
			t.Errorf("recorded is %+v: %+v", s, s.Verified)
		}
	}

	d.thawAfter(safetyThawOfRun)
	_, report = d.take("--level", "freeze")
	if !report.Clean {
		t.Fatalf("the report is %+v", report)
	}
	d.mustVerify(report.Disks[0].SnapshotCID, true)
	c.goOn()
	c.mustHaveLost(nil)
}
