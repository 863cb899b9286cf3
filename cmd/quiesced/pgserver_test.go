package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// pgBin is where Debian has the server's and the clients' programs.
const pgBin = "/usr/lib/postgresql/15/bin"

// database is a VM with a PostgreSQL on its persistent disk.
type database struct {
	*world
	vcap  string // what /var/vcap is on a BOSH VM
	apart string // a directory that the VM does not have, for what is restored

	// The supervisor's: a verb of the daemon's, and whether it says that the server runs.
	verb       func(args ...string) result
	serverRuns func() bool

	verifies bool // the job has a verify script
}

const (
	imagesSize = 3 << 30   // of the filesystem for images and snapshots, sparse
	diskSize   = 512 << 20 // of the persistent disk
)

// newDatabase makes a VM whose server does not run yet.
func newDatabase(t *testing.T, fstype string) *database {
	t.Helper()
	dir := t.TempDir()
	images, err := loopfs.Make(dir, "images", "xfs", imagesSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := images.Close(); err != nil {
			t.Error(err)
		}
	})
	d := &database{world: newWorldOn(t, dir, images.Mount, fstype, diskSize), vcap: filepath.Join(dir, "vcap"), apart: t.TempDir()}
	d.must(os.Chmod(filepath.Dir(dir), 0o711)) // the server's user has to reach its files
	for _, own := range []string{d.data(), d.sockets(), filepath.Dir(d.serverLog())} {
		d.ownedByPostgres(own)
	}
	d.noteWhenTheCPIIsTold()
	d.makeCluster()
	d.writeJob()
	return d
}

func (d *database) data() string      { return filepath.Join(d.store, "postgres") }
func (d *database) sockets() string   { return filepath.Join(d.vcap, "sys/run/postgres") }
func (d *database) serverLog() string { return filepath.Join(d.vcap, "sys/log/postgres/server.log") }

// ownedByPostgres makes a directory that the server may write to.
func (d *database) ownedByPostgres(dir string) {
	d.t.Helper()
	d.must(os.MkdirAll(dir, 0o755))
	if out, err := exec.Command("chown", "postgres:postgres", dir).CombinedOutput(); err != nil {
		d.t.Fatalf("cannot give %s to postgres: %v: %s", dir, err, out)
	}
}

// noteWhenTheCPIIsTold puts local-cpi behind a script that notes when a request for a
// snapshot was there in full. The point in time comes after that.
func (d *database) noteWhenTheCPIIsTold() {
	d.t.Helper()
	local := filepath.Join(d.dir, "local-cpi") // a machine of systemd's has this directory alone
	program, err := os.ReadFile(filepath.Join(binaries, "local-cpi"))
	d.must(err)
	d.must(writeProgram(local, string(program)))
	d.cpi = filepath.Join(d.dir, "cpi")
	d.must(os.WriteFile(d.cpi, []byte(`#!/bin/sh
request=$(cat)
case "$request" in *'"method":"snapshot_disk"'*) date +%s%N >`+d.dir+`/told;; esac
printf %s "$request" | `+local+"\n"), 0o755))
}

// cpiTold is when the CPI was told to take the last snapshot.
func (d *database) cpiTold() time.Time {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join(d.dir, "told"))
	d.must(err)
	since, err := time.ParseDuration(strings.TrimSpace(string(text)) + "ns")
	d.must(err)
	return time.Unix(0, since.Nanoseconds())
}

// makeCluster makes the server's files. Times of commits are kept, for what a lock is
// to hold back is told by them.
func (d *database) makeCluster() {
	d.t.Helper()
	d.asPostgres("initdb", "-D", d.data(), "--auth=trust", "--no-locale", "--encoding=UTF8", "--data-checksums", "--no-sync")
	f, err := os.OpenFile(filepath.Join(d.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	d.must(err)
	_, err = f.WriteString("listen_addresses = ''\nunix_socket_directories = '" + d.sockets() + "'\n" +
		"track_commit_timestamp = on\nmax_wal_size = 64MB\nmin_wal_size = 32MB\n")
	d.must(err)
	d.must(f.Close())
}

// asPostgres runs a program of the server's as its user, for it refuses root.
func (d *database) asPostgres(program string, args ...string) string {
	d.t.Helper()
	args = append([]string{"--reuid=postgres", "--regid=postgres", "--init-groups", filepath.Join(pgBin, program)}, args...)
	cmd := exec.Command("setpriv", args...)
	cmd.Dir = "/"
	// A server that was started holds what it inherits: no pipe of ours, or its end
	// would be waited for.
	out, err := os.CreateTemp(d.dir, "out-")
	d.must(err)
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	said, _ := os.ReadFile(out.Name())
	if err != nil {
		d.t.Fatalf("%s %q: %v\n%s", program, args, err, said)
	}
	return string(said)
}

// sql runs commands on the server whose socket is in a directory.
func (d *database) sql(sockets, commands string) string {
	d.t.Helper()
	out, err := trySQL(sockets, commands)
	if err != nil {
		d.t.Fatalf("%v: %s\n%s", err, commands, out)
	}
	return out
}

func trySQL(sockets, commands string) (string, error) {
	cmd := psql(sockets, "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", commands)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return strings.TrimSpace(out.String()), err
}

func psql(sockets string, args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(pgBin, "psql"), append([]string{"-X", "-h", sockets, "-U", "postgres"}, args...)...)
}

// await waits for what a database may take long for on a busy machine.
func (d *database) await(what string, done func() bool) {
	d.t.Helper()
	for began := time.Now(); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > 4*patience {
			d.t.Fatalf("waited %s in vain: %s\nthe daemon logged:\n%s", 4*patience, what, d.log)
		}
	}
}

// fill makes the tables, pgbench's too, once the server answers.
func (d *database) fill() {
	d.t.Helper()
	d.await("the server answers", func() bool { _, err := trySQL(d.sockets(), "SELECT 1"); return err == nil })
	d.sql(d.sockets(), `CREATE TABLE ledger (client int, number int, PRIMARY KEY (client, number));
		CREATE TABLE account (client int PRIMARY KEY, entries int NOT NULL, latest int NOT NULL);
		CREATE EXTENSION amcheck`)
	out, err := exec.Command(filepath.Join(pgBin, "pgbench"), "-h", d.sockets(), "-U", "postgres", "-i", "-q", "postgres").CombinedOutput()
	if err != nil {
		d.t.Fatalf("pgbench -i: %v\n%s", err, out)
	}
}
