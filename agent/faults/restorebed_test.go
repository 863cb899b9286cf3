package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/httpapi"
	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/loopfs"
	"github.com/quiesced/quiesced/quiesce/monit"
	"github.com/quiesced/quiesced/quiesce/monit/monittest"
)

// restoreBed is a VM on which one restore after the other is played: a disk of
// local-cpi's, on which a service that monit supervises has a file open, and a daemon.
type restoreBed struct {
	*vm
	store   string // where the disk is mounted
	disks   string // local-cpi's directory of them
	monit   *monittest.Monit
	client  *monit.Client
	version int    // of what was written last
	id      string // of the last restore
}

// restoreConfig is that of a bed's daemon.
const restoreConfig = `enable_snapshots: true
state_dir: %[1]s/state
listen: {socket: %[1]s/run/q.sock, metrics: ""}
instance: {deployment: cf, job: db, index: 0, id: inst-1, agent_id: agent-1}
disks: [{cid: disk-1, mounts: [%[1]s/store]}]
cpi: {path: %[1]s/cpi, context: {root: %[1]s/cpi-root}}
budgets: {pre_stop: 10s, drain: 10s, stop: 30s, lock: 10s, pre_sync: 30s, frozen: 10s, snapshot: 30s, resume: 15s}
processes: {supervisor: monit, root: %[1]s/vcap, monit: {url: %[2]q, user_file: %[3]s, stopped_file: %[1]s/monit/stopped}}
log: {level: debug}
`

// restoreCPI is local-cpi with failpoints: before it is told of a call, and after it has
// done it. A file fail.METHOD has it fail once, and lie.METHOD say that it has done what it has not,
// with the result that is in the file.
const restoreCPI = `#!/bin/sh
dir=%[1]s
hit() {
	[ -e $dir/points/$1 ] && mv $dir/points/$1 $dir/points/$1.hit || return
	echo $$ >$dir/points/$1.hit
	while [ -e $dir/points/$1.hit ]; do sleep 0.01; done
}
request=$(cat)
method=${request#*\"method\":\"}
method=${method%%%%\"*}
case "$request" in *'"arguments":["",""]'*) method=asked;; esac # what it can do
if mv $dir/fail.$method $dir/failed 2>/dev/null; then
	echo '{"result":null,"error":{"type":"Bosh::Clouds::CloudError","message":"out of order","ok_to_retry":false},"log":""}'
	exit
fi
hit $method-told
if mv $dir/lie.$method $dir/lied 2>/dev/null; then
	lie=$(cat $dir/lied)
	echo '{"result":'"${lie:-null}"',"error":null,"log":""}'
	exit
fi
answer=$(printf %%s "$request" | %[2]s)
hit $method-done
printf '%%s\n' "$answer"
`

// restoreService is how a service is started. It is never to be started where its data
// is not, and does not run on data of a version that the test says it refuses.
const restoreService = `version=$(cat %[1]s/store/version) || { echo no data >>%[1]s/bad; exit 1; }
[ ! -e %[1]s/refuse.%[2]s.$version ] || exit 1
%[1]s/service 100000 3>>%[1]s/store/open </dev/null >/dev/null 2>&1 & echo $! >%[1]s/monit/%[2]s.pid`

// restoreServices are those that have a file on the disk open.
var restoreServices = []string{"db", "proxy"}

// restoreBeds lends beds, of which there are as many as cases at a time.
type restoreBeds struct {
	dir  string
	mu   sync.Mutex
	made int           // guarded by mu
	free []*restoreBed // guarded by mu
}

func newRestoreBeds(t *testing.T) *restoreBeds {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "restores-")
	if err != nil {
		t.Fatal(err)
	}
	p := &restoreBeds{dir: dir}
	t.Cleanup(func() {
		var errs []error
		for _, b := range p.free {
			errs = append(errs, b.close())
		}
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	return p
}

// borrow lends a bed. One of a case that failed is not given back, but looked at.
func (p *restoreBeds) borrow(t *testing.T) *restoreBed {
	t.Helper()
	p.mu.Lock()
	var b *restoreBed
	if n := len(p.free); n > 0 {
		b, p.free = p.free[n-1], p.free[:n-1]
	} else {
		p.made++
		b = &restoreBed{vm: &vm{dir: filepath.Join(p.dir, strconv.Itoa(p.made)), thawed: func() {}}}
	}
	p.mu.Unlock()
	if b.monit == nil {
		if err := b.make(); err != nil {
			t.Fatal(errors.Join(err, b.close()))
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(b.dir, "log"))
			t.Logf("the daemon logged:\n%s", log)
			_ = b.close()
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.free = append(p.free, b)
	})
	return b
}

func (b *restoreBed) path(elem ...string) string {
	return filepath.Join(append([]string{b.dir}, elem...)...)
}

func (b *restoreBed) make() error {
	b.store, b.disks, b.points = b.path("store"), b.path("cpi-root", "disks"), b.path("points")
	for _, dir := range []string{b.disks, b.points, b.path("monit"), b.path("vcap")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	image := filepath.Join(b.disks, "disk-1.img")
	err := errors.Join(
		os.WriteFile(image, nil, 0o600), os.Truncate(image, 16<<20), loopfs.Format(image, "ext4"),
		loopfs.Mount(image, b.store, "nosuid", "noatime"),
		executable(b.path("cpi"), fmt.Sprintf(restoreCPI, b.dir, filepath.Join(binaries, "local-cpi"))),
		os.Symlink("/bin/sleep", b.path("service")))
	if err != nil {
		return err
	}
	if err := b.write(); err != nil {
		return err
	}
	var services []monittest.Service
	for _, name := range restoreServices {
		services = append(services, monittest.Service{Name: name, Start: fmt.Sprintf(restoreService, b.dir, name), Timeout: 3 * time.Second})
	}
	if b.monit, err = monittest.Start(b.path("monit"), services...); err != nil {
		return err
	}
	b.client = monit.New(monit.Config{URL: b.monit.URL, UserFile: b.monit.UserFile})
	b.vm.client = api.Client{Caller: httpapi.NewClient(b.path("run", "q.sock"))}
	text := fmt.Appendf(nil, restoreConfig, b.dir, b.monit.URL, b.monit.UserFile)
	return errors.Join(os.WriteFile(b.path("q.yml"), text, 0o600), b.start(), b.answers(), eventually("the services run", b.runs))
}

// close ends the daemon and monit and takes the disk out. What is left of the disk must
// be sound.
func (b *restoreBed) close() error {
	errs := []error{b.vm.close()}
	if b.monit != nil {
		errs = append(errs, b.monit.Close())
	}
	for _, name := range restoreServices {
		if pid, err := b.pid(name); err == nil {
			p, _ := os.FindProcess(pid)
			_ = p.Kill()
		}
	}
	if len(b.mounts()) > 0 {
		errs = append(errs, loopfs.Unmount(b.store))
	}
	images, _ := filepath.Glob(filepath.Join(b.disks, "*.img"))
	for _, image := range images {
		for _, loop := range loopsOf(image) {
			errs = append(errs, exec.Command("losetup", "-d", loop).Run())
		}
	}
	return errors.Join(append(errs, sound(filepath.Join(b.disks, "disk-1.img")))...)
}

// sound checks a filesystem that was unmounted.
func sound(image string) error {
	if out, err := exec.Command("e2fsck", "-fn", image).CombinedOutput(); err != nil {
		return fmt.Errorf("%s IS DAMAGED: %w\n%s", image, err, out)
	}
	return nil
}

// loopsOf are the loop devices that an image is attached to.
func loopsOf(image string) []string {
	out, _ := exec.Command("losetup", "-n", "-O", "NAME", "-j", image).Output()
	return strings.Fields(string(out))
}

// write writes a new version of all data.
func (b *restoreBed) write() error {
	b.version++
	return errors.Join(
		os.WriteFile(filepath.Join(b.store, "blob"), bytes.Repeat(fmt.Appendf(nil, "%8d", b.version), 1<<17), 0o600),
		os.WriteFile(filepath.Join(b.store, "version"), fmt.Appendln(nil, b.version), 0o600))
}

// holds is the version of the data, which is all of one.
func (b *restoreBed) holds() (int, error) {
	text, err := os.ReadFile(filepath.Join(b.store, "version"))
	if err != nil {
		return 0, err
	}
	blob, err := os.ReadFile(filepath.Join(b.store, "blob"))
	if err != nil {
		return 0, err
	}
	version, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if !bytes.Equal(blob, bytes.Repeat(fmt.Appendf(nil, "%8d", version), 1<<17)) {
		err = errors.Join(err, fmt.Errorf("THE DATA IS NOT ALL OF VERSION %d", version))
	}
	return version, err
}

// mounts are the lines of /proc/mounts of the disk's place and below.
func (b *restoreBed) mounts() []string {
	text, _ := os.ReadFile("/proc/mounts")
	return slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool {
		f := strings.Fields(line)
		return len(f) < 2 || f[1] != b.store && !strings.HasPrefix(f[1], b.store+"/")
	})
}

func (b *restoreBed) pid(service string) (int, error) {
	text, err := os.ReadFile(b.path("monit", service+".pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// runs says whether the services run, by monit's word, and have their file on the disk
// that is in its place open.
func (b *restoreBed) runs() bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := b.client.Services(ctx)
	there, statErr := os.Stat(filepath.Join(b.store, "open"))
	if err != nil || statErr != nil || len(all) != len(restoreServices) {
		return false
	}
	for _, s := range all {
		pid, err := b.pid(s.Name)
		if err != nil || s.State != jobs.Running || !s.Monitored {
			return false
		}
		has, err := os.Stat(fmt.Sprintf("/proc/%d/fd/3", pid))
		if err != nil || !os.SameFile(has, there) {
			return false
		}
	}
	return true
}

// other is the version that an image holds of which nobody has anything mounted.
func (b *restoreBed) other(cid string) (int, error) {
	image := filepath.Join(b.disks, cid+".img")
	if loops := loopsOf(image); len(loops) > 0 {
		return 0, fmt.Errorf("the other disk is attached as %q", loops)
	}
	if err := sound(image); err != nil {
		return 0, err
	}
	out, err := exec.Command("debugfs", "-R", "cat /version", image).Output()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(out)))
}
