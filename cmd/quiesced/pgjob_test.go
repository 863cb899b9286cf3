package main

import (
	"os"
	"path/filepath"
	"strings"
)

// The job as a release has it. BIN, DATA, SOCKETS and LOG stand for paths.

// ctl starts and stops the server where the supervisor does not do so itself.
const ctl = `#!/bin/sh
as_postgres="setpriv --reuid=postgres --regid=postgres --init-groups BIN/pg_ctl -s -w -t 120 -D DATA"
case $1 in
start) exec $as_postgres start -l LOG;;
stop) exec $as_postgres stop -m fast;;
esac
`

// lock lets writers wait: a session that outlives the script holds every table against
// them. It gets the tables in the order in which transactions use them, or the two
// would wait for each other.
const lock = `#!/bin/sh
set -eu
export PGHOST=SOCKETS PGUSER=postgres
PGAPPNAME=backup-lock BIN/psql -X -v ON_ERROR_STOP=1 -c BEGIN \
	-c 'LOCK TABLE ledger, account, pgbench_accounts, pgbench_tellers, pgbench_branches, pgbench_history IN SHARE MODE' \
	-c 'SELECT pg_sleep(3600)' </dev/null >SOCKETS/backup-lock.log 2>&1 &
holder=$!
held="SELECT count(*) FROM pg_stat_activity WHERE application_name = 'backup-lock' AND wait_event = 'PgSleep'"
until [ "$(BIN/psql -XAtc "$held")" = 1 ]; do
	kill -0 $holder || { cat SOCKETS/backup-lock.log >&2; exit 1; }
	sleep 0.05
done
BIN/psql -XAtc 'SELECT clock_timestamp()' >SOCKETS/locked
BIN/psql -Xqc CHECKPOINT
`

const unlock = `#!/bin/sh
set -eu
export PGHOST=SOCKETS PGUSER=postgres
BIN/psql -XAtc 'SELECT clock_timestamp()' >SOCKETS/unlocking
BIN/psql -XAtc "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'backup-lock'"
`

// unitOfServer is what PostgreSQL's documentation has for a server under systemd.
const unitOfServer = `[Unit]
Description=PostgreSQL
[Service]
Type=notify
User=postgres
ExecStart=BIN/postgres -D DATA
ExecReload=/bin/kill -HUP $MAINPID
KillMode=mixed
KillSignal=SIGINT
TimeoutSec=120
StandardError=append:LOG
`

func (d *database) filledIn(text string) string {
	return strings.NewReplacer("BIN", pgBin, "DATA", d.data(), "SOCKETS", d.sockets(), "LOG", d.serverLog()).Replace(text)
}

// ctl is the path of the job's script that starts and stops the server.
func (d *database) ctl() string { return filepath.Join(d.vcap, "jobs/postgres/bin/ctl") }

func (d *database) writeJob() {
	d.t.Helper()
	bin := filepath.Dir(d.ctl())
	d.must(os.MkdirAll(filepath.Join(bin, "bbr"), 0o755))
	for name, text := range map[string]string{"ctl": ctl, "bbr/pre-backup-lock": lock, "bbr/post-backup-unlock": unlock} {
		d.must(writeProgram(filepath.Join(bin, name), d.filledIn(text)))
	}
}

// processes is the configuration of a supervisor, one line of it given.
func (d *database) processes(supervisor, line string) func(string) string {
	return with("processes:\n  supervisor: " + supervisor + "\n  root: " + d.vcap + "\n  " + line + `
budgets: {pre_stop: 30s, drain: 30s, stop: 120s, lock: 60s, frozen: 30s, resume: 120s}
`)
}
