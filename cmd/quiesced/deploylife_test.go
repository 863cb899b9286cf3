package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent/wire"
)

// deploy does what a first deploy does.
func (v *deployedVM) deploy() {
	v.t.Helper()
	v.m.Do("systemctl", "start", "monit")
	v.script("pre-start")
	v.startServices()
	v.script("post-start")
}

// pid is the daemon's process, which has to be there.
func (v *deployedVM) pid() string {
	v.t.Helper()
	pid := v.property("MainPID")
	if pid == "0" || v.property("ActiveState") != "active" {
		v.t.Fatalf("the unit is %s, its process %s", v.property("ActiveState"), pid)
	}
	return pid
}

// taken takes a snapshot and is its report.
func (v *deployedVM) taken(args ...string) wire.Report {
	v.t.Helper()
	v.touch("go")
	v.must(os.WriteFile(filepath.Join(v.dir, "cid"), fmt.Appendf(nil, "snap-%d", time.Now().UnixNano()), 0o600))
	var r wire.Report
	v.must(json.Unmarshal([]byte(v.m.Do(append([]string{"quiesced", "take-snapshot", "--json", "--wait"}, args...)...)), &r))
	return r
}

func TestReleaseOnAVM(t *testing.T) {
	v := newDeployedVM(t)
	v.isInstalled()
	v.standsBeforeTheCPIs()
	v.isUpdatedInMidRun()
	v.isStartedAgainByMonit()
	v.isRemoved()
}

func (v *deployedVM) isInstalled() {
	v.deploy()
	v.is("quiesced", "OK")
	if enabled := v.m.Do("systemctl", "is-enabled", "quiesced"); enabled != "enabled" {
		v.t.Errorf("the unit is %s", enabled)
	}
	if pidfile := v.m.Do("cat", "/run/quiesced/quiesced.pid"); pidfile != v.pid() {
		v.t.Errorf("monit's pidfile has %s, the daemon is %s", pidfile, v.pid())
	}
	if out := v.m.Do("stat", "-c", "%a %U", "/var/vcap/jobs/quiesced/config/quiesced.yml"); out != "600 root" {
		v.t.Errorf("the configuration, with the CPI's secrets, is %s", out)
	}
	if r := v.taken("--level", "stop"); !r.Clean || r.Reached != "stop" || r.Disks[0].CID != v.cid {
		v.t.Errorf("the report is %+v", r)
	}
	if out := v.m.Do("quiesced", "snapshots", "--json"); !strings.Contains(out, `"inst-1"`) {
		v.t.Errorf("the list does not say of which instance it is:\n%s", out)
	}
	v.is("worker", "OK")
	if worked := v.worked(); worked != "start stop start" {
		v.t.Errorf("the worker was told %q", worked)
	}
}

// director calls what stands before a CPI, as a director's worker does: with a user's
// rights, no groups, and nothing in the environment.
func (v *deployedVM) director(cpi, request string) string {
	v.t.Helper()
	return v.m.Do("sh", "-c", `printf %s "$1" | setpriv --reuid=nobody --regid=nogroup --clear-groups env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$2" 2>&1`,
		"sh", request, "/var/vcap/jobs/quiesce_cpi/bin/"+cpi)
}

const selfSnapshot = `{"method":"snapshot_disk","arguments":["%s",{"deployment":"self","job":"director","index":0,"director_name":"d","director_uuid":"u","agent_id":"self"}],"context":{"director_uuid":"u","request_id":"cpi-1"},"api_version":2}`

func (v *deployedVM) standsBeforeTheCPIs() {
	for name, want := range map[string]string{"cpi": "real_cpi", "other_cpi": "other_cpi"} {
		got := v.director(name, `{"method":"info","arguments":[],"context":{"director_uuid":"u","request_id":"cpi-0"}}`)
		if got != `{"result":"`+want+`","error":null,"log":""}` {
			v.t.Errorf("bin/%s answers %s", name, got)
		}
	}
	v.isSnapshottedByTheDirector()
}

func (v *deployedVM) isSnapshottedByTheDirector() {
	v.t.Helper()
	answer := v.director("cpi", fmt.Sprintf(selfSnapshot, v.cid))
	var all []wire.Report
	v.must(json.Unmarshal([]byte(v.m.Do("quiesced", "runs", "--json")), &all))
	r := all[0]
	if cid := r.Disks[0].SnapshotCID; !r.Clean || r.Reached != "freeze" || !strings.HasPrefix(cid, "real_cpi-") || !strings.Contains(answer, `"result":"`+cid+`"`) {
		v.t.Errorf("the director's snapshot is answered with %s, the newest run is %+v", answer, r)
	}
}

// A job update, in the director's order, begins while a run is in its window.
func (v *deployedVM) isUpdatedInMidRun() {
	before, worked := v.pid(), v.worked()
	v.inWindow("cut-off")
	v.script("pre-stop")
	if v.frozen() {
		v.t.Error("the director goes on and the disk is frozen")
	}
	v.stopServices()
	v.script("post-stop")
	if after := v.pid(); after != before {
		v.t.Errorf("the daemon was %s and is %s after the services were stopped", before, after)
	}
	v.touch("go") // the CPI of the run that was cut off answers
	v.isSnapshottedByTheDirector()
	if r := v.taken("--level", "stop"); !r.Clean || r.Reached != "stop" {
		v.t.Errorf("the report of the update's snapshot is %+v", r)
	}
	v.update("2", "quiesced", "worker")
	if r := v.taken("--level", "freeze"); !r.Clean || v.pid() != before {
		v.t.Errorf("without its package, the daemon reports %+v", r)
	}
	v.script("pre-start")
	v.startServices()
	v.script("post-start")
	if exe := v.m.Do("readlink", "/proc/"+v.pid()+"/exe"); exe != "/var/vcap/data/packages/quiesced/2/bin/quiesced" {
		v.t.Errorf("after the update runs %s", exe)
	}
	if now := v.worked(); now != worked+" stop start" {
		v.t.Errorf("the worker was told %q before the update, %q after", worked, now)
	}
	if out := v.m.Do("quiesced", "runs", "--json"); !strings.Contains(out, "cut-off") || !strings.Contains(out, "snap-cut-off") {
		v.t.Errorf("the run that the update cut off has no CID:\n%s", out)
	}
	if r := v.taken("--level", "stop"); !r.Clean || r.Reached != "stop" {
		v.t.Errorf("after the update the daemon has not taken the jobs back: %+v", r)
	}
}

// Somebody stops the unit; monit has it started.
func (v *deployedVM) isStartedAgainByMonit() {
	v.is("quiesced", "OK")
	v.m.Do("systemctl", "stop", "quiesced")
	v.eventually("monit starts it", func() bool { return v.property("ActiveState") == "active" })
	v.is("quiesced", "OK")
}

func (v *deployedVM) isRemoved() {
	worked := v.worked()
	v.inWindow("last")
	v.script("pre-stop")
	v.stopServices()
	v.script("post-stop")
	pid := v.pid()
	v.update("3", "worker")
	v.startServices()
	time.Sleep(2 * time.Second) // more than removed_after
	if now := v.property("MainPID"); now != pid {
		v.t.Errorf("the daemon %s has left the CPI's answer to nobody", pid)
	}
	v.touch("go")
	v.eventually("the unit is gone", func() bool { return v.property("LoadState") == "not-found" })
	v.eventually("the daemon has ended", func() bool { _, err := v.m.Run("test", "-e", "/proc/"+pid); return err != nil })
	for _, path := range []string{"/etc/systemd/system/quiesced.service", "/etc/systemd/system/multi-user.target.wants/quiesced.service"} {
		if out, err := v.m.Run("ls", "-d", path); err == nil {
			v.t.Errorf("%s is left", out)
		}
	}
	if v.frozen() {
		v.t.Error("the filesystem is frozen")
	}
	if now := v.worked(); now != worked+" stop start" {
		v.t.Errorf("the worker was told %q before the removal, %q after", worked, now)
	}
}

// A VM that loses its power while a run holds the worker stopped: after the boot the
// agent mounts its disk and starts monit, and nobody runs a script.
func TestReleaseOnAVMThatIsBootedAgain(t *testing.T) {
	v := newDeployedVM(t)
	v.deploy()
	v.goesOnAfterAPowerCut()
	v.outlivesTheLossOfData()
	v.runsWithoutSystemd()
}

func (v *deployedVM) goesOnAfterAPowerCut() {
	v.inWindow("cut-off", "--level", "stop")
	v.m.Cut()
	v.thawNow()
	v.m.PowerOn(func(root string) {
		v.must(os.Rename(root+"/var/vcap/data", root+"/var/vcap/data-not-mounted"))
	})
	if state := v.property("ActiveState"); state != "inactive" {
		v.t.Errorf("before the agent has mounted the disk the unit is %s", state)
	}
	v.m.Do("mv", "/var/vcap/data-not-mounted", "/var/vcap/data")
	v.mountStore()
	v.m.Do("systemctl", "start", "monit")
	v.is("quiesced", "OK")
	v.is("worker", "OK")
	v.eventually("the mark of who stopped the services is gone", func() bool {
		_, err := v.m.Run("test", "-e", "/var/vcap/monit/stopped")
		return err != nil
	})
	if out := v.m.Do("quiesced", "snapshots", "--json"); !strings.Contains(out, "unresolved") {
		v.t.Errorf("nobody knows what became of the snapshot, and the list says\n%s", out)
	}
	if worked := v.worked(); worked != "start stop start" {
		v.t.Errorf("the worker was told %q", worked)
	}
}

// An IaaS that starts the VM elsewhere gives it an empty disk for /var/vcap/data. Only
// a deploy helps then, and the daemon is in nobody's way.
func (v *deployedVM) outlivesTheLossOfData() {
	v.m.Cut()
	v.m.PowerOn(func(root string) { v.must(os.RemoveAll(root + "/var/vcap/data")) })
	if state := v.property("ActiveState"); state != "inactive" {
		v.t.Errorf("without its package the unit is %s", state)
	}
	v.mountStore()
	v.apply(v.m.Root(), "2", "quiesced", "worker")
	v.deploy()
	v.is("quiesced", "OK")
	if r := v.taken("--level", "stop"); !r.Clean {
		v.t.Errorf("the report is %+v", r)
	}
}

// Where no systemd runs, monit starts the daemon itself. Another user has put a link
// where its log goes.
func (v *deployedVM) runsWithoutSystemd() {
	v.m.Do("systemctl", "disable", "--now", "monit", "quiesced")
	v.m.Do("mkdir", "-p", "/var/vcap/sys/log/quiesced")
	v.m.Do("ln", "-s", "/var/vcap/store/not-ours", "/var/vcap/sys/log/quiesced/quiesced.log")
	v.m.Do(withoutSystemd("monit", "-c", "/etc/monitrc")...)
	v.is("quiesced", "OK")
	if state := v.property("ActiveState"); state != "inactive" {
		v.t.Errorf("the unit is %s", state)
	}
	if r := v.taken("--level", "freeze"); !r.Clean {
		v.t.Errorf("the report is %+v", r)
	}
	if log := v.m.Do("cat", "/var/vcap/sys/log/quiesced/quiesced.log"); !strings.Contains(log, "run ended") {
		v.t.Errorf("its log has\n%s", log)
	}
	if out, err := v.m.Run("cat", "/var/vcap/store/not-ours"); err == nil {
		v.t.Errorf("root has written where a link led to:\n%s", out)
	}
	v.isRestartedWithoutSystemd()
}

func (v *deployedVM) isRestartedWithoutSystemd() {
	const ctl, pidfile = "/var/vcap/jobs/quiesced/bin/quiesced_ctl", "/run/quiesced/quiesced.pid"
	first := v.m.Do("cat", pidfile)
	v.m.Do(withoutSystemd("/var/vcap/jobs/quiesced/bin/pre-start")...)
	v.script("post-start")
	second := v.m.Do("cat", pidfile)
	if _, err := v.m.Run("test", "-e", "/proc/"+first); err == nil || first == second {
		v.t.Errorf("pre-start was to restart the daemon, which was %s and is %s", first, second)
	}
	v.m.Do("kill", "-KILL", second)
	v.eventually("monit starts it", func() bool { return v.m.Do("cat", pidfile) != second })
	v.script("post-start")
	v.monit("quit")
	third := v.m.Do("cat", pidfile)
	v.m.Do(withoutSystemd(ctl, "stop")...)
	if _, err := v.m.Run("test", "-e", "/proc/"+third); err == nil {
		v.t.Error("the daemon was stopped, and is there")
	}
}

// withoutSystemd runs a command that does not see that systemd runs.
func withoutSystemd(command ...string) []string {
	return append([]string{"unshare", "--mount", "sh", "-c", `mount -t tmpfs none /run/systemd && exec "$@"`, "sh"}, command...)
}
