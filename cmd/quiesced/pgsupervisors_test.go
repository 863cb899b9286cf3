package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/monit"
	"github.com/quiesced/quiesced/quiesce/monit/monittest"
)

// superviseByMonit starts the server and the daemon.
func (d *database) superviseByMonit() {
	d.t.Helper()
	dir := filepath.Join(d.vcap, "monit")
	d.must(os.MkdirAll(dir, 0o755))
	m, err := monittest.Start(dir, monittest.Service{
		Name: "postgres", Start: "exec " + d.ctl() + " start", Stop: "exec " + d.ctl() + " stop",
		PIDFile: filepath.Join(d.data(), "postmaster.pid"), Timeout: 2 * time.Minute,
	})
	d.must(err)
	d.t.Cleanup(func() { d.must(m.Close()) })
	d.t.Cleanup(func() {
		d.must(m.Kill()) // or it would start the server again
		d.asPostgres("pg_ctl", "stop", "-w", "-t", "120", "-s", "-m", "immediate", "-D", d.data())
	})
	d.verb = d.run
	supervisor := monit.New(monit.Config{URL: m.URL, UserFile: m.UserFile, Group: "vcap"})
	d.serverRuns = func() bool {
		all, err := supervisor.Services(d.t.Context())
		return err == nil && len(all) == 1 && all[0].State == jobs.Running
	}
	d.configure(d.processes("monit", "monit: {url: "+m.URL+", user_file: "+m.UserFile+", stopped_file: "+dir+"/stopped}"))
	d.start()
}

// superviseBySystemd boots a machine in which systemd runs the server and the daemon.
// Clients reach the server from here, by its socket.
func (d *database) superviseBySystemd() {
	d.t.Helper()
	u := bootUnit(d.world, func(*unit) string { return "" }, d.processes("systemd", "systemd: {units: [postgres]}"))
	u.must(os.WriteFile(u.m.Root()+"/run/systemd/system/postgres.service", []byte(d.filledIn(unitOfServer)), 0o644))
	u.m.Do("systemctl", "daemon-reload")
	u.m.Do("systemctl", "start", "postgres", "quiesced")
	d.serverRuns = func() bool { return u.m.Property("postgres", "ActiveState") == "active" }
	d.verb = func(args ...string) result {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := u.m.Command(ctx, append([]string{"quiesced"}, args...)...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		_ = cmd.Run() // its exit code tells
		return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
	}
}
