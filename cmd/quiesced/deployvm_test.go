package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/quiesced/quiesced/quiesce/monit/monittest"
	"github.com/quiesced/quiesced/quiesce/systemd/systemdtest"
)

// deployedVM is a VM as a stemcell makes it: with a real systemd, a real monit, and the
// tree of /var/vcap. The test does what bosh-agent would. Beside quiesced
// there is the job worker, whose service does nothing and notes when it is started and
// stopped; and it is a director's VM, too, with quiesce_cpi and two CPIs.
type deployedVM struct {
	*unit
	address string // of monit
}

const monitrc = `set daemon 1
set idfile /var/vcap/monit/id
set statefile /var/vcap/monit/state
set pidfile /run/monit.pid
set logfile /var/vcap/monit/log
set httpd port %s and use address 127.0.0.1
  allow vcap:random-password
include /var/vcap/monit/job/*.monitrc
`

// monitUnit starts monit again whenever it ends, as a stemcell's runit does. What monit
// has started stays.
const monitUnit = `[Service]
ExecStart=/usr/bin/monit -I -c /etc/monitrc
Restart=always
RestartSec=100ms
KillMode=process
`

const (
	workerMonit = `check process worker with pidfile /run/worker.pid
  start program "/var/vcap/jobs/worker/bin/ctl start" with timeout 30 seconds
  stop program "/var/vcap/jobs/worker/bin/ctl stop" with timeout 30 seconds
  group vcap
`
	workerCtl = `#!/bin/sh
[ $1 != start ] || ! kill -0 $(cat /run/worker.pid) 2>/dev/null || exit 0
echo $1 >>/var/vcap/store/worker.log
case $1 in
start) setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >/run/worker.pid ;;
stop) kill $(cat /run/worker.pid); rm -f /run/worker.pid ;;
esac
`
)

// newDeployedVM boots a VM on which version 1 of the jobs lies, and nothing runs.
func newDeployedVM(t *testing.T) *deployedVM {
	t.Helper()
	w := newWorld(t)
	w.script("cid=$(cat $dir/cid)\ntouch $dir/called\nuntil [ -e $dir/go ] || [ ! -e $dir ]; do sleep 0.02; done\n" +
		`printf '{"result":"%s","error":null,"log":""}\n' $cid` + "\n")
	v := &deployedVM{unit: &unit{world: w}, address: freePort(t)}
	v.m = systemdtest.Boot(t, w.dir, func(root string) {
		_, port, _ := strings.Cut(v.address, ":")
		monit, err := monittest.Binary()
		v.must(err)
		v.install(root, "/usr/bin/monit", monit, 0o755)
		v.write(root, "/etc/monitrc", fmt.Sprintf(monitrc, port), 0o600)
		v.write(root, "/etc/systemd/system/monit.service", monitUnit, 0o644)
		v.write(root, "/var/vcap/monit/monit.user", "vcap:random-password", 0o600)
		v.must(os.MkdirAll(root+"/var/vcap/monit/job", 0o755))
		v.write(root, "/var/vcap/bosh/settings.json", `{"agent_id":"agent-1"}`, 0o600)
		v.write(root, "/var/vcap/bosh/spec.json", `{"deployment":"cf","name":"db","index":0,"id":"inst-1"}`, 0o600)
		v.write(root, "/var/vcap/bosh/managed_disk_settings.json", v.cid, 0o600)
		v.must(os.MkdirAll(root+"/var/vcap/store", 0o755))
		v.must(os.Symlink("/var/vcap/jobs/quiesced/bin/quiesced", root+"/usr/bin/quiesced"))
		v.apply(root, "1", "quiesced", "worker", "quiesce_cpi", "real_cpi", "other_cpi")
	})
	v.mountStore()
	return v
}

// mountStore mounts the persistent disk, as the agent does at each boot.
func (v *deployedVM) mountStore() {
	v.t.Helper()
	v.m.Do("mount", "--bind", v.store, "/var/vcap/store")
}

func (v *deployedVM) write(root, path, text string, mode os.FileMode) {
	v.t.Helper()
	v.must(os.MkdirAll(filepath.Dir(root+path), 0o755))
	v.must(os.WriteFile(root+path, []byte(text), mode))
}

// properties are the job's. Who the VM is, and its disk, is in the stemcell's files.
func (v *deployedVM) properties() map[string]any {
	return map[string]any{
		"enable_snapshots": true,
		"listen":           map[string]any{"metrics": "", "holders": "nobody"},
		"cpi":              map[string]any{"path": v.cpi, "context": map[string]any{"password": "c1oudcow"}},
		"processes":        map[string]any{"monit": map[string]any{"url": "http://" + v.address}},
		"bosh":             map[string]any{"removed_after": "500ms"},
	}
}

// apply puts a version of jobs and of the package below root, and removes all others,
// as an agent's apply does.
func (v *deployedVM) apply(root, version string, jobs ...string) {
	v.t.Helper()
	vcap := root + "/var/vcap"
	for _, kind := range []string{"jobs", "packages"} {
		v.must(os.RemoveAll(vcap + "/" + kind))
		v.must(os.MkdirAll(vcap+"/"+kind, 0o755))
	}
	for _, job := range jobs {
		v.applyJob(root, version, job)
	}
	all, err := filepath.Glob(vcap + "/data/[jp]*s/*/*")
	v.must(err)
	for _, dir := range all {
		link := vcap + strings.TrimPrefix(filepath.Dir(dir), vcap+"/data")
		if _, err := os.Lstat(link); err != nil || filepath.Base(dir) != version {
			v.must(os.RemoveAll(dir))
		}
	}
}

// namedCPI answers with its name, and a number after it for a snapshot.
const namedCPI = `#!/bin/sh
case $(cat) in *snapshot_disk*) number=-$$ ;; esac
echo '{"result":"%s'$number'","error":null,"log":""}'
`

func (v *deployedVM) applyJob(root, version, job string) {
	v.t.Helper()
	dir := "/var/vcap/data/jobs/" + job + "/" + version
	v.must(os.MkdirAll(root+dir, 0o755))
	v.must(os.Symlink(dir, root+"/var/vcap/jobs/"+job))
	switch job {
	case "worker":
		v.write(root, dir+"/monit", workerMonit, 0o644)
		v.write(root, dir+"/bin/ctl", workerCtl, 0o755)
	case "quiesced":
		v.must(os.CopyFS(root+dir, os.DirFS(render(v.t, job, v.properties()).dir)))
		v.applyPackage(root, version)
	case "quiesce_cpi":
		v.must(os.CopyFS(root+dir, os.DirFS(render(v.t, job, map[string]any{"cpi": "real_cpi", "cpis": []string{"other_cpi"}}).dir)))
	default:
		v.write(root, dir+"/bin/cpi", fmt.Sprintf(namedCPI, job), 0o755)
	}
}

func (v *deployedVM) applyPackage(root, version string) {
	v.t.Helper()
	dir := "/var/vcap/data/packages/quiesced/" + version
	for _, name := range []string{"quiesced", "quiesced-guard", "quiesce-cpi"} {
		v.install(root, dir+"/bin/"+name, filepath.Join(binaries, name), 0o755)
	}
	link := root + "/var/vcap/packages/quiesced"
	if _, err := os.Lstat(link); err != nil {
		v.must(os.Symlink(dir, link))
	}
}

// update is apply on the running VM: monit forgets all services, and ends.
func (v *deployedVM) update(version string, jobs ...string) {
	v.t.Helper()
	v.m.Do("sh", "-c", "rm -f /var/vcap/monit/job/*")
	v.m.Do("systemctl", "kill", "--kill-who=main", "--signal=KILL", "monit")
	v.apply(v.m.Root(), version, jobs...)
}

// script runs a script of all jobs that have one, as the agent does.
func (v *deployedVM) script(name string) {
	v.t.Helper()
	for _, job := range v.jobs() {
		path := "/var/vcap/jobs/" + job + "/bin/" + name
		if _, err := v.m.Run("test", "-e", path); err == nil {
			v.m.Do("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", path)
		}
	}
}

func (v *deployedVM) jobs() []string {
	v.t.Helper()
	return strings.Fields(v.m.Do("ls", "/var/vcap/jobs"))
}

// monit runs one of monit's commands, once monit answers: before that the command would
// be carried out by the process that it is given to.
func (v *deployedVM) monit(args ...string) string {
	v.t.Helper()
	command := func(args ...string) []string { return append([]string{"monit", "-B", "-c", "/etc/monitrc"}, args...) }
	v.eventually("monit answers", func() bool {
		_, err := v.m.Run(command("summary")...)
		return err == nil
	})
	return v.m.Do(command(args...)...)
}

// is waits until monit says of a service how it is.
func (v *deployedVM) is(service, how string) {
	v.t.Helper()
	line := regexp.MustCompile(`(?m)^\s*` + service + `\s+` + how + `\s`)
	v.eventually(service+" is "+how, func() bool { return line.MatchString(v.monit("summary")) })
}

// stopServices does so as the agent does, which knows of group vcap alone.
func (v *deployedVM) stopServices() {
	v.t.Helper()
	v.monit("-g", "vcap", "stop", "all")
	v.is("worker", "Not monitored")
	v.m.Do("touch", "/var/vcap/monit/stopped")
}

// startServices gives monit its files back, which begins to look after everything.
func (v *deployedVM) startServices() {
	v.t.Helper()
	v.m.Do("sh", "-c", "cd /var/vcap/jobs && for m in */monit; do cp $m /var/vcap/monit/job/${m%/monit}.monitrc; done")
	v.m.Do("systemctl", "restart", "monit")
	v.monit("-g", "vcap", "start", "all")
	v.is("worker", "OK")
	v.m.Do("rm", "-f", "/var/vcap/monit/stopped")
}

// worked is what was done to the worker since the start of the test.
func (v *deployedVM) worked() string {
	v.t.Helper()
	return strings.Join(strings.Fields(v.m.Do("cat", "/var/vcap/store/worker.log")), " ")
}

// thawNow is what the end of a machine does to its freezes. Here the filesystem is one
// of a kernel that goes on.
func (v *deployedVM) thawNow() { _ = exec.Command("fsfreeze", "--unfreeze", v.store).Run() }
