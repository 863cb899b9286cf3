package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// restored is a snapshot that was attached, as another VM would.
type restored struct {
	*database
	at string // its mount point
}

// attach attaches a writable copy of a snapshot.
func (d *database) attach(cid, fstype string) *restored {
	d.t.Helper()
	image := filepath.Join(d.root, "restored.img")
	out, err := exec.Command("cp", "--reflink=always", filepath.Join(d.root, "snapshots", cid+".img"), image).CombinedOutput()
	if err != nil {
		d.t.Fatalf("cannot copy the snapshot: %v: %s", err, out)
	}
	d.must(os.Chmod(image, 0o600))
	r := &restored{database: d, at: filepath.Join(d.apart, "store")}
	var options []string
	if fstype == "xfs" {
		options = []string{"nouuid"} // the original is mounted too
	}
	d.must(loopfs.Mount(image, r.at, options...))
	d.ownedByPostgres(r.sockets())
	return r
}

// detach leaves nothing of the snapshot that was attached.
func (r *restored) detach() {
	r.t.Helper()
	r.must(errors.Join(loopfs.Unmount(r.at), os.Remove(filepath.Join(r.root, "restored.img")), os.RemoveAll(r.sockets())))
}

func (r *restored) data() string    { return filepath.Join(r.at, "postgres") }
func (r *restored) sockets() string { return filepath.Join(r.apart, "sockets") }

// start starts a server on the snapshot, and returns what it logged.
func (r *restored) start() string {
	r.t.Helper()
	log := filepath.Join(r.sockets(), "log")
	r.asPostgres("pg_ctl", "start", "-w", "-t", "120", "-s", "-D", r.data(), "-l", log, "-o", "-k "+r.sockets())
	text, err := os.ReadFile(log)
	r.must(err)
	return string(text)
}

func (r *restored) stop() {
	r.t.Helper()
	r.asPostgres("pg_ctl", "stop", "-w", "-t", "120", "-s", "-m", "fast", "-D", r.data())
}

// mustBeShutDown asserts that the server had ended when the snapshot was taken.
func (r *restored) mustBeShutDown() {
	r.t.Helper()
	if _, err := os.Stat(filepath.Join(r.data(), "postmaster.pid")); !errors.Is(err, fs.ErrNotExist) {
		r.t.Errorf("the snapshot has the pid file of a server that runs: %v", err)
	}
	state := r.asPostgres("pg_controldata", r.data())
	if !slices.ContainsFunc(strings.Split(state, "\n"), func(line string) bool {
		return strings.HasPrefix(line, "Database cluster state:") && strings.HasSuffix(line, " shut down")
	}) {
		r.t.Errorf("the snapshot's cluster is not shut down:\n%s", state)
	}
	r.asPostgres("pg_checksums", "--check", "-D", r.data())
}

// forgetServer removes the pid file of the server that ran when the snapshot was taken.
// On another machine nobody would have that pid.
func (r *restored) forgetServer() {
	r.t.Helper()
	if err := os.Remove(filepath.Join(r.data(), "postmaster.pid")); err != nil {
		r.t.Errorf("the snapshot is of no server that runs: %v", err)
	}
}

// mustLog asserts how the server came up.
func (r *restored) mustLog(log, level string) {
	r.t.Helper()
	want, never := "automatic recovery in progress", []string{"PANIC", "ERROR", "FATAL", "invalid page", "checksum"}
	if level == "stop" {
		want = "database system was shut down at"
		never = append(never, "recovery", "redo", "interrupted")
	}
	for _, text := range []string{want, "database system is ready to accept connections"} {
		if !strings.Contains(log, text) {
			r.t.Errorf("%q is missing from the log of the server on the snapshot:\n%s", text, log)
		}
	}
	for _, text := range never {
		if strings.Contains(log, text) {
			r.t.Errorf("%q is in the log of the server on the snapshot:\n%s", text, log)
		}
	}
}

// consistent are questions whose answer is known, of tables that every transaction
// leaves so.
var consistent = []struct{ what, sql, want string }{
	{"accounts that differ from the ledger", `SELECT count(*) FROM account a WHERE entries <> (SELECT count(*) FROM ledger WHERE client = a.client)
		OR latest <> (SELECT coalesce(max(number), 0) FROM ledger WHERE client = a.client)`, "0"},
	{"accounts", "SELECT count(*) FROM account", fmt.Sprint(clients)},
	{"pgbench's balances and history agree", `SELECT sum(abalance) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)
		AND sum(abalance) = (SELECT sum(tbalance) FROM pgbench_tellers)
		AND sum(abalance) = (SELECT sum(bbalance) FROM pgbench_branches) FROM pgbench_accounts`, "t"},
	{"pgbench's accounts", "SELECT count(*) FROM pgbench_accounts", "100000"},
}

func (r *restored) mustBeConsistent() {
	r.t.Helper()
	for _, c := range consistent {
		if got := r.sql(r.sockets(), c.sql); got != c.want {
			r.t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
	// Tables and indexes, page by page, and that each row is in each index.
	r.asPostgres("pg_amcheck", "-h", r.sockets(), "--heapallindexed", "postgres")
}

// mustHold asserts that the snapshot has every row that was acknowledged before the CPI
// was told, and beside those, of each client, no more than the one that was on its way.
func (r *restored) mustHold(c *crowd, told time.Time) {
	r.t.Helper()
	for _, one := range c.clients {
		there := map[int]bool{}
		for _, line := range strings.Fields(r.sql(r.sockets(), fmt.Sprintf("SELECT number FROM ledger WHERE client = %d", one.id))) {
			var number int
			_, err := fmt.Sscan(line, &number)
			r.must(err)
			there[number] = true
		}
		acked := one.ackedBefore(told)
		if len(acked) == 0 {
			r.t.Errorf("client %d had committed nothing: this test tests nothing", one.id)
		}
		for _, number := range acked {
			if !there[number] {
				r.t.Errorf("row %d of client %d is missing: its commit was acknowledged before the point in time", number, one.id)
			}
			delete(there, number)
		}
		var more []int
		for number := range there {
			if !one.wasLost(number) {
				more = append(more, number)
			}
		}
		if len(more) > 1 {
			r.t.Errorf("rows %v of client %d are there, which had not sent more than one of them", more, one.id)
		}
	}
}
