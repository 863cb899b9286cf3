package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/quiesced/quiesced/agent/api"
)

// verifier is a world with a snapshot, and a job whose script looks at it.
type verifier struct {
	*world
	cid string
}

func newVerifier(t *testing.T, change ...func(string) string) *verifier {
	t.Helper()
	w := newWorldOn(t, t.TempDir(), host, "ext4", 32<<20)
	w.configure(append(change, with("processes: {root: "+w.dir+"/vcap}\n"))...)
	w.must(os.WriteFile(w.store+"/data", []byte("of the snapshot"), 0o644))
	w.must(os.Symlink(w.store+"/data", w.store+"/absolute"))
	w.bend()
	w.start()
	_, report := w.take("--level", "freeze")
	w.must(os.WriteFile(w.store+"/data", []byte("of today"), 0o644))
	return &verifier{w, report.Disks[0].SnapshotCID}
}

// job makes the verify script of a job.
func (v *verifier) job(name, body string) {
	v.t.Helper()
	path := filepath.Join(v.dir, "vcap/jobs", name, "bin/quiesced/verify")
	v.must(os.MkdirAll(filepath.Dir(path), 0o755))
	v.must(writeProgram(path, "#!/bin/sh\ndir="+v.dir+"\n"+body+"\n"))
}

func TestJobLooksAtTheSnapshotAndNotAtTheDisk(t *testing.T) {
	v := newVerifier(t)
	v.job("db", `exec >$dir/said 2>&1
env | grep ^QUIESCED_ | grep -v QUIESCED_SCRIPT | sed "s|$dir|DIR|" | sort
cat $QUIESCED_MOUNT/data; echo
cat $QUIESCED_MOUNT/absolute
touch $QUIESCED_MOUNT/data
mountpoint -q $dir/store || echo the disk is not there
mount -t tmpfs mine /mnt && echo mounted
setsid sleep 4713 &
exit 0`)
	r, found := v.verify(v.cid)
	v.mustSay(r, exitOK)
	if found.How != "e2fsck, job db" || found.Result != "the filesystem is whole, and the jobs' scripts agree" {
		t.Errorf("got %+v", found)
	}
	said, err := os.ReadFile(v.dir + "/said")
	v.must(err)
	for _, want := range []string{
		"QUIESCED_CLEAN=true\nQUIESCED_DISK_CID=disk-1\nQUIESCED_LEVEL=freeze\nQUIESCED_MOUNT=DIR/run/verified\nQUIESCED_SNAPSHOT_CID=" + v.cid + "\n",
		"\nof the snapshot\n", "absolute: No such file or directory\n", "Read-only file system\n", "\nthe disk is not there\nmounted\n",
	} {
		if !strings.Contains(string(said), want) {
			t.Errorf("%q is missing from\n%s", want, said)
		}
	}
	if left, _ := exec.Command("pgrep", "-f", "sleep 4713").Output(); len(left) > 0 {
		t.Errorf("what the script left running still runs: %s", left)
	}
	v.mustBeClear()
}

func TestScriptsDecide(t *testing.T) {
	v := newVerifier(t)
	for _, c := range []struct {
		name, script string
		verdict      bool
		want         string
	}{
		{"one that says no", "echo the index is broken >&2; exit 1", true, `quiesced/verify of job "db" failed: exit status 1: the index is broken`},
		{"one that says no and leaves a mount", "mount -t tmpfs mine /mnt; cd /mnt; exit 3", true, "exit status 3"},
		{"one that is killed", "kill -9 $$", false, "killed by signal 9"},
		{"one whose program is missing", "exec /no/such/program\nexit 125", true, "exit status 127"},
		{"one that runs nothing", "exit 125", false, "exit status 125"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v.job("db", c.script)
			r := v.run("verify", v.cid, "--json")
			v.mustSay(r, exitFailed)
			var found api.Verified
			v.must(json.Unmarshal([]byte(r.out), &found))
			said := found.Result
			if !c.verdict {
				said = r.err
			}
			if !strings.Contains(said, c.want) || c.verdict != (found.CID == v.cid) {
				t.Errorf("got %+v, want %q", r, c.want)
			}
			v.mustBeClear()
		})
	}
	v.job("web", "exit 0")
	v.job("db", "echo really >&2; exit 1")
	r, found := v.verify(v.cid)
	v.mustSay(r, exitFailed)
	if found.How != "e2fsck, job db, job web" || !strings.Contains(found.Result, "really") || strings.Contains(found.Result, "web") {
		t.Errorf("got %+v", found)
	}
}

func TestScriptThatHangsIsEnded(t *testing.T) {
	v := newVerifier(t, with("budgets: {verify: 2s}\n"))
	v.job("db", "sleep 4714 & wait")
	v.mustSay(v.run("verify", v.cid), exitFailed, "took longer than its budget")
	if left, _ := exec.Command("pgrep", "-f", "sleep 4714").Output(); len(left) > 0 {
		t.Errorf("what the script has started still runs: %s", left)
	}
	v.mustBeClear()
}

// waits is a step at which a verification waits for the test.
var waits = map[string]func(v *verifier){
	"making the disk": func(v *verifier) { v.bent(waitIn("create_disk")) },
	"asking the jobs": func(v *verifier) { v.job("db", "touch $dir/called; sleep 4715") },
}

// waitIn has the CPI do what it is told and answer when the test says so.
func waitIn(method string) string {
	return `[ $method = ` + method + ` ] && { call >$dir/answer; touch $dir/called; until [ -e $dir/go ] || [ ! -e $dir ]; do sleep 0.02; done; cat $dir/answer; exit; }`
}

func TestVerificationThatIsEndedRemovesWhatItMade(t *testing.T) {
	for how, c := range map[string]struct {
		steps []string
		end   func(v *verifier, cmd *exec.Cmd)
	}{
		"interrupted": {[]string{"making the disk", "asking the jobs"}, func(_ *verifier, cmd *exec.Cmd) { _ = cmd.Process.Signal(syscall.SIGINT) }},
		"yielded":     {[]string{"asking the jobs"}, func(v *verifier, _ *exec.Cmd) { v.mustSay(v.run("yield"), exitOK) }},
		"stopped":     {[]string{"making the disk"}, func(v *verifier, _ *exec.Cmd) { v.end(); v.touch("go"); v.start() }},
		"killed":      {[]string{"asking the jobs"}, func(v *verifier, _ *exec.Cmd) { v.kill(); v.start() }},
	} {
		t.Run(how, func(t *testing.T) {
			v := newVerifier(t)
			for _, step := range c.steps {
				waits[step](v)
				cmd := exec.Command(filepath.Join(binaries, "quiesced"), "verify", v.cid, "--config", v.config)
				v.must(cmd.Start())
				v.eventually(step, func() bool { return v.exists("called") })
				v.mustSay(v.run("verify", "--latest"), exitBusy, "verify "+v.cid)
				c.end(v, cmd)
				v.touch("go")
				_ = cmd.Wait()
				v.eventually("the verification has ended", func() bool { return !strings.Contains(v.run("status").out, v.cid) })
				v.mustBeClear()
				v.bent("")
				v.job("db", "exit 0")
				v.must(os.RemoveAll(v.dir + "/called"))
				v.must(os.RemoveAll(v.dir + "/go"))
				v.mustSay(v.run("unyield"), exitOK)
				if s := v.snapshots()[0]; s.Verified != nil {
					t.Errorf("recorded is %+v", s.Verified)
				}
			}
			v.mustSay(v.run("verify", v.cid), exitOK)
		})
	}
}

// A run that begins meanwhile waits for nothing.
func TestRunGoesOnBesideAVerification(t *testing.T) {
	v := newVerifier(t)
	v.job("db", "touch $dir/called; until [ -e $dir/go ] || [ ! -e $dir ]; do sleep 0.02; done")
	verify := v.begin("verify", v.cid, "--json")
	v.eventually("the job is asked", func() bool { return v.exists("called") })
	r, report := v.take("--level", "freeze")
	v.mustSay(r, exitOK)
	if !report.Clean {
		t.Errorf("the report is %+v", report)
	}
	v.mustSay(v.run("delete-snapshot", v.cid), exitBusy, "verify "+v.cid)
	v.touch("go")
	v.mustSay(verify(), exitOK)
	v.mustSay(v.run("delete-snapshot", v.cid), exitOK)
}
