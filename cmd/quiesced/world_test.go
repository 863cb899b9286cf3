package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// world is one VM: a disk, a configuration, and the daemon when it runs.
type world struct {
	t      testing.TB
	dir    string
	store  string // mount point of the disk's ext4
	cid    string // the disk's
	cpi    string // path of the CPI
	root   string // of local-cpi
	config string // path of the configuration
	daemon *exec.Cmd
	under  []string      // the command that runs the daemon, nil for none
	ended  chan struct{} // closed when the daemon has been waited for
	log    *bytes.Buffer // of daemons that ended
	logTo  *os.File      // where the daemon logs instead, nil for log

	stopThaw func() // calls off what thaws the disk in time
}

// safetyThaw is after how long a frozen disk is thawed from outside, come what
// may. It is longer than any test holds a freeze.
const safetyThaw = 40 * time.Second

// newWorld makes a disk and a configuration with defaults; change edits the
// configuration's text.
func newWorld(t testing.TB, change ...func(string) string) *world {
	t.Helper()
	w := newWorldOn(t, t.TempDir(), host, "ext4", 32<<20)
	w.configure(change...)
	return w
}

// newWorldOn makes a world in a directory, whose disk has a filesystem of a type and
// size. Its image lies on another filesystem, as does what the CPI makes.
func newWorldOn(t testing.TB, dir, images, fstype string, size int64) *world {
	t.Helper()
	w := &world{t: t, dir: dir, cid: "disk-1"}
	root, err := os.MkdirTemp(images, "cpi-")
	w.must(err)
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	w.root = root
	w.must(os.Mkdir(filepath.Join(root, "disks"), 0o700))
	image := filepath.Join(root, "disks", w.cid+".img")
	w.must(os.WriteFile(image, nil, 0o600))
	w.must(os.Truncate(image, size))
	w.must(loopfs.Format(image, fstype))
	w.store = filepath.Join(w.dir, "store")
	w.must(loopfs.Mount(image, w.store))
	t.Cleanup(w.takeOut)
	w.thawAfter(safetyThaw)
	t.Cleanup(func() { w.stopThaw() })
	t.Cleanup(w.end)
	w.cpi = filepath.Join(binaries, "local-cpi")
	return w
}

// takeOut unmounts the disk, and detaches what a CPI has left attached.
func (w *world) takeOut() {
	w.t.Helper()
	w.must(loopfs.Unmount(w.store))
	images, _ := filepath.Glob(filepath.Join(w.root, "disks", "*.img"))
	for _, image := range images {
		out, err := exec.Command("losetup", "--noheadings", "--output", "NAME", "--associated", image).Output()
		w.must(err)
		for _, device := range strings.Fields(string(out)) {
			w.must(exec.Command("losetup", "--detach", device).Run())
		}
	}
}

// thawAfter has the disk thawed from outside after a time, come what may.
func (w *world) thawAfter(after time.Duration) {
	w.t.Helper()
	if w.stopThaw != nil {
		w.stopThaw()
	}
	var err error
	w.stopThaw, err = loopfs.ThawAfter(w.store, after)
	w.must(err)
}

const worldConfig = `enable_snapshots: true
state_dir: %[1]s/state
listen: {socket: %[1]s/run/q.sock, metrics: ""}
instance: {deployment: cf, job: db, index: 0, id: inst-1, agent_id: agent-1}
disks: [{cid: %[2]s, mounts: [%[3]s]}]
catalogue: {copy: false}
cpi: {path: %[4]s, context: {root: %[5]s, password: c1oudcow}}
`

func (w *world) configure(change ...func(string) string) {
	w.t.Helper()
	text := fmt.Sprintf(worldConfig, w.dir, w.cid, w.store, w.cpi, w.root)
	for _, edit := range change {
		text = edit(text)
	}
	w.config = filepath.Join(w.dir, "q.yml")
	w.must(os.WriteFile(w.config, []byte(text), 0o600))
}

func with(lines string) func(string) string {
	return func(text string) string { return text + lines }
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// script makes the CPI a shell script whose body answers snapshot_disk. It has
// read the request into $request, whole: as any parser would, the script does
// nothing about one that is cut short. Other methods it answers by itself, with
// an error while the file "broken" is there.
func (w *world) script(body string) {
	w.t.Helper()
	w.cpi = filepath.Join(w.dir, "cpi")
	text := `#!/bin/sh
dir=` + w.dir + `
request=$(cat)
case "$request" in
*'"method":"info"'*) echo '{"result":{"api_version":2,"stemcell_formats":[]},"error":null,"log":""}'; exit;;
*'"api_version":2}') ;;
*) echo cut short; exit;;
esac
case "$request" in
*'"method":"snapshot_disk"'*) ;;
*)	if [ -e $dir/broken ]; then
		echo '{"result":null,"error":{"type":"Bosh::Clouds::CloudError","message":"in use","ok_to_retry":true},"log":""}'
	else
		echo '{"result":null,"error":null,"log":""}'
	fi
	exit;;
esac
` + body
	w.must(writeProgram(w.cpi, text))
}

// writeProgram writes what is executed soon: no process that another test starts meanwhile
// may inherit the file while it is written to.
func writeProgram(path, text string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, []byte(text), 0o755)
}

// answered is the line that answers with a CID.
func answered(cid string) string {
	return `echo '{"result":"` + cid + `","error":null,"log":""}'` + "\n"
}

// paused tells the test that it was called, by the file "called", and answers
// when the file "go" is there.
func paused(cid string) string {
	return "touch $dir/called\nuntil [ -e $dir/go ] || [ ! -e $dir ]; do sleep 0.02; done\n" + answered(cid)
}

// start starts the daemon and waits until it answers.
func (w *world) start() {
	w.t.Helper()
	w.configureCPI()
	command := append(slices.Clone(w.under), filepath.Join(binaries, "quiesced"), "serve", "--config", w.config)
	w.daemon = exec.Command(command[0], command[1:]...)
	out := &bytes.Buffer{}
	w.daemon.Stderr = out
	if w.logTo != nil {
		w.daemon.Stderr = w.logTo
	}
	w.daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	w.must(w.daemon.Start())
	w.log, w.ended = out, make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) { _ = cmd.Wait(); close(ended) }(w.daemon, w.ended)
	w.eventually("the daemon answers", func() bool { return w.run("status").code == exitOK })
}

// configureCPI puts the present CPI into the configuration.
func (w *world) configureCPI() {
	w.t.Helper()
	text, err := os.ReadFile(w.config)
	w.must(err)
	local := filepath.Join(binaries, "local-cpi")
	w.must(os.WriteFile(w.config, bytes.ReplaceAll(text, []byte(local), []byte(w.cpi)), 0o600))
}

func (w *world) signal(s syscall.Signal) {
	w.t.Helper()
	w.must(w.daemon.Process.Signal(s))
}

// kill ends the daemon as nothing can that it could prepare for.
func (w *world) kill() {
	w.t.Helper()
	w.signal(syscall.SIGKILL)
	<-w.ended
	w.daemon = nil
}

// end stops a daemon that still runs.
func (w *world) end() {
	if w.daemon == nil {
		return
	}
	_ = w.daemon.Process.Signal(syscall.SIGTERM)
	select {
	case <-w.ended:
	case <-time.After(20 * time.Second):
		_ = w.daemon.Process.Kill()
		<-w.ended
		w.t.Error("the daemon did not end within 20 s of SIGTERM")
	}
	w.daemon = nil
	if w.t.Failed() {
		w.t.Logf("the daemon logged:\n%s", w.log)
	}
}

// exists says whether the test's own file is there.
func (w *world) exists(name string) bool {
	_, err := os.Stat(filepath.Join(w.dir, name))
	return err == nil
}

func (w *world) touch(name string) {
	w.t.Helper()
	w.must(os.WriteFile(filepath.Join(w.dir, name), nil, 0o600))
}

// patience bounds every wait of a test for something that should come.
const patience = 15 * time.Second

func (w *world) eventually(what string, done func() bool) time.Duration {
	w.t.Helper()
	began := time.Now()
	for !done() {
		if time.Since(began) > patience {
			w.t.Fatalf("waited %s in vain: %s\nthe daemon logged:\n%s", patience, what, w.log)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began)
}

// frozen asks the kernel: a process of its own tries to make a file, and a
// frozen filesystem keeps it waiting. The process is gone after the thaw.
func (w *world) frozen() bool {
	w.t.Helper()
	cmd := exec.Command("touch", filepath.Join(w.store, "is-it-frozen"))
	w.must(cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		w.must(err)
		return false
	case <-time.After(300 * time.Millisecond):
		return true
	}
}

// mustBeGoing asserts what holds after every run, however it ended: the disk is
// writable and no guard is left.
func (w *world) mustBeGoing() {
	w.t.Helper()
	if w.frozen() {
		w.t.Fatal("the filesystem is still frozen")
	}
	left, err := filepath.Glob(filepath.Join(w.dir, "run", "guard-*"))
	w.must(err)
	if len(left) > 0 {
		w.t.Errorf("records of freezes are left: %q", left)
	}
}
