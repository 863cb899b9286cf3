package main

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent/wire"
)

// postgresRuns is how many snapshots are taken under each supervisor at each level.
var postgresRuns = flag.Int("postgres-runs", 1, "how many snapshots of a database to take under each supervisor at each level")

// safetyThawOfRun is after how long a database's disk is thawed from outside. A run
// may need long before it freezes.
const safetyThawOfRun = 3 * time.Minute

func TestPostgreSQLUnderMonit(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "ext4")
	d.verifiesItself()
	d.superviseByMonit()
	d.playAllLevels("monit", "ext4")
}

func TestPostgreSQLUnderSystemd(t *testing.T) {
	t.Parallel()
	d := newDatabase(t, "xfs")
	d.superviseBySystemd()
	d.playAllLevels("systemd", "xfs")
}

// playAllLevels takes snapshots while clients commit, and restores each.
func (d *database) playAllLevels(supervisor, fstype string) {
	d.await("the supervisor says that the server runs", func() bool { return d.serverRuns() })
	d.fill()
	c := startCrowd(d)
	for _, level := range []string{"freeze", "lock", "stop"} {
		times := map[string][]float64{}
		for range *postgresRuns {
			d.play(c, level, fstype, times)
			if d.t.Failed() {
				d.t.Fatalf("under %s at level %s", supervisor, level)
			}
		}
		d.t.Logf("postgres: under %s at %s, %d runs, medians: %s", supervisor, level, *postgresRuns, medians(times))
	}
}

// play takes one snapshot, looks at the server that goes on, and restores the snapshot.
func (d *database) play(c *crowd, level, fstype string, times map[string][]float64) {
	d.t.Helper()
	c.goOn()
	c.mustHaveLost(nil)
	d.thawAfter(safetyThawOfRun)
	asked := time.Now()
	r := d.verb("take-snapshot", "--json", "--level", level)
	told := d.cpiTold()
	report := d.report(r)
	if r.code != exitOK || !report.Clean || report.Reached != level || report.Outcome != "succeeded" || told.Before(asked) {
		d.t.Fatalf("asked at %s, the CPI told at %s: %+v\n%+v", asked, told, r, report)
	}
	d.mustHaveLeftNoServer(report)
	d.await("the supervisor says that the server runs", func() bool { return d.serverRuns() })
	c.goOn()
	switch level {
	case "stop":
		c.mustHaveLost(lostConnection)
	case "lock":
		d.mustHaveBeenLocked(told)
		fallthrough
	default:
		c.mustHaveLost(nil)
	}
	d.restore(c, report.Disks[0].SnapshotCID, level, fstype, told)
	for _, phase := range []string{"frozen", "jobs_down", "locked", "total"} {
		if took, ok := report.Seconds[phase]; ok {
			times[phase] = append(times[phase], took)
		}
	}
	times["clients waited"] = append(times["clients waited"], c.waitedAround(told).Seconds())
}

// restore starts a server on the snapshot, and deletes the snapshot if all is well.
func (d *database) restore(c *crowd, cid, level, fstype string, told time.Time) {
	d.t.Helper()
	if d.verifies {
		d.mustVerify(cid, true)
	}
	s := d.attach(cid, fstype)
	defer s.detach()
	if level == "stop" {
		s.mustBeShutDown()
	} else {
		s.forgetServer()
	}
	log := s.start()
	defer s.stop()
	s.mustLog(log, level)
	s.mustBeConsistent()
	s.mustHold(c, told)
	if r := d.verb("delete-snapshot", cid); r.code != exitOK {
		d.t.Errorf("cannot delete %s: %+v", cid, r)
	}
}

// mustHaveLeftNoServer asserts that no process of the server's was left to write.
func (d *database) mustHaveLeftNoServer(report wire.Report) {
	d.t.Helper()
	for _, note := range report.Notes {
		d.t.Logf("%s: note: %s", report.Asked, note)
		if strings.Contains(note, "postgres") {
			d.t.Errorf("a note of a run that stopped the server: %s", note)
		}
	}
}

// mustHaveBeenLocked asserts that the CPI was told while the tables were locked, and
// that nobody committed in that time. The server itself knows when that was.
func (d *database) mustHaveBeenLocked(told time.Time) {
	d.t.Helper()
	at := func(name string) string {
		text, err := os.ReadFile(filepath.Join(d.sockets(), name))
		d.must(err)
		return "'" + strings.TrimSpace(string(text)) + "'::timestamptz"
	}
	moment := "'" + told.UTC().Format("2006-01-02 15:04:05.999999Z") + "'::timestamptz"
	if d.sql(d.sockets(), "SELECT "+at("locked")+" < "+moment+" AND "+moment+" < "+at("unlocking")) != "t" {
		d.t.Errorf("locked at %s, the CPI told at %s, unlocked at %s", at("locked"), moment, at("unlocking"))
	}
	written := d.sql(d.sockets(), `SELECT count(*) FROM (SELECT xmin AS x FROM ledger UNION ALL SELECT xmin FROM pgbench_history) all_rows
		WHERE pg_xact_commit_timestamp(x) BETWEEN `+at("locked")+" AND "+at("unlocking"))
	if written != "0" {
		d.t.Errorf("%s rows were committed while the tables were locked", written)
	}
}

// lostConnection is all that clients may hear when a server is stopped and started.
var lostConnection = regexp.MustCompile(`terminating connection due to administrator command` +
	`|server closed the connection unexpectedly` +
	`|This probably means the server terminated abnormally|before or while processing the request` +
	`|connection to server was lost|no connection to the server` +
	`|connection to server on socket .* failed: (No such file or directory|Connection refused|FATAL:  the database system is (shutting down|starting up))` +
	`|Is the server running locally and accepting connections on that socket` +
	`|pgbench: error: (client \d+ (script 0 )?aborted in |could not create connection for setup|Run was aborted; the above results are incomplete)` +
	`|perhaps the backend died while processing` +
	`|^CONTEXT:  while `) // of what a terminated connection was at

// mustHaveLost asserts that clients heard of nothing but what is allowed, nil for
// nothing.
func (c *crowd) mustHaveLost(allowed *regexp.Regexp) {
	c.db.t.Helper()
	lines := c.takeErrors()
	if allowed != nil && len(lines) == 0 {
		c.db.t.Error("no client has noticed that the server was stopped")
	}
	for _, line := range lines {
		if allowed == nil || !allowed.MatchString(line) {
			c.db.t.Errorf("a client says: %s", line)
		}
	}
}

// medians are those of each kind of time, in milliseconds.
func medians(times map[string][]float64) string {
	var all []string
	for name, seconds := range times {
		slices.Sort(seconds)
		median := time.Duration(seconds[len(seconds)/2] * float64(time.Second))
		all = append(all, name+" "+median.Round(100*time.Microsecond).String())
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
