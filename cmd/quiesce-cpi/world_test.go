package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/httpapi"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

const (
	// vcap is a uid and gid that stand for the user of a director's workers.
	vcap = 64242

	patience = 20 * time.Second

	// safetyThaw is after how long a frozen disk is thawed from outside, come what
	// may. It is longer than any test holds a freeze.
	safetyThaw = 40 * time.Second

	directorUUID = "80f6a3c2-5d2f-4c1e-9d4e-2f6b8c0a1e77"
)

// binaries is the directory of the programs under test.
var binaries string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // most of them wait
		fmt.Println(err)
		return 1
	}
	if os.Geteuid() != 0 {
		fmt.Println("these tests need root: they freeze filesystems")
		return 1
	}
	var err error
	if binaries, err = os.MkdirTemp("", "quiesce-cpi-test-"); err != nil {
		fmt.Println(err)
		return 1
	}
	defer func() { _ = os.RemoveAll(binaries) }()
	build := exec.Command("go", "build", "-o", binaries+"/", "./cmd/quiesced", "./cmd/quiesced-guard", "./cmd/local-cpi", "./cmd/quiesce-cpi")
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Printf("cannot build: %v\n%s", err, out)
		return 1
	}
	err = os.WriteFile(filepath.Join(binaries, "runner"), []byte(runner), 0o755)
	if err = errors.Join(err, os.Chmod(binaries, 0o755)); err != nil {
		fmt.Println(err)
		return 1
	}
	return m.Run()
}

// world is a director with its worker and its bus, and a VM with a disk and a daemon.
type world struct {
	t      testing.TB
	dir    string // everybody may look into it
	shared string // a directory of the worker's, $D in its CPI's script
	disk   *loopfs.FS
	disks  string // more of them, as the daemon's configuration names them
	bus    *apitest.Bus
	cpi    string // the real one
	config string // of quiesce-cpi

	certificates string // the director's, as its configuration names them

	daemon *exec.Cmd // nil when it does not run
	ended  chan struct{}
	log    *logged
}

// logged is what a daemon logs.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newWorld makes a world whose daemon runs. The CPI is a script, which has read its
// request into $D/request, and settings are added to quiesce-cpi's.
func newWorld(t testing.TB, script, settings string) *world {
	t.Helper()
	w := &world{t: t, log: &logged{}, certificates: "{}"}
	dir, err := os.MkdirTemp("", "quiesce-cpi-world-")
	w.must(err)
	w.dir = dir
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w.must(os.Chmod(dir, 0o755))
	w.shared = filepath.Join(dir, "shared")
	w.must(os.Mkdir(w.shared, 0o700))
	w.must(os.Chown(w.shared, vcap, vcap))
	w.disk, err = loopfs.Make(dir, "store", "ext4", 16<<20)
	w.must(err)
	t.Cleanup(func() { w.must(w.disk.Close()) })
	stopThaw, err := loopfs.ThawAfter(w.disk.Mount, safetyThaw)
	w.must(err)
	t.Cleanup(stopThaw)
	w.bus = apitest.StartBus(t, withHealthMonitor)
	w.script(script)
	w.configure(w.bus.URL("director"), settings)
	t.Cleanup(w.end)
	w.start(w.bus.URL("agent"))
	w.eventually("the daemon is on the bus", w.onBus)
	return w
}

// withHealthMonitor lets the health monitor onto the bus.
func withHealthMonitor(o *server.Options) {
	o.Users = append(o.Users, &server.User{Username: "hm", Password: o.Users[0].Password, Permissions: &server.Permissions{
		Publish:   &server.SubjectPermission{Deny: []string{">"}},
		Subscribe: &server.SubjectPermission{Allow: []string{"hm.director.alert"}},
	}})
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// runner is a CPI that runs the file "body" beside itself. It is written before any process
// is started: one that is just being started keeps a file open that is being written, and
// such a file cannot be run.
const runner = "#!/bin/sh\n. ${0%/*}/body\n"

// scriptAt makes a script a CPI in a directory.
func scriptAt(t testing.TB, dir, script string) (path string) {
	t.Helper()
	path = filepath.Join(dir, "cpi")
	err := os.WriteFile(filepath.Join(dir, "body"), []byte(script+"\n"), 0o644)
	if err = errors.Join(err, os.Symlink(filepath.Join(binaries, "runner"), path)); err != nil {
		t.Fatal(err)
	}
	return path
}

func (w *world) script(body string) {
	w.t.Helper()
	w.cpi = scriptAt(w.t, w.dir, fmt.Sprintf("D='%s'\nawait() { until [ -e \"$D/$1\" ] || [ ! -e \"$D\" ]; do sleep 0.02; done; }\nrequest=$(cat)\ncase $request in *}) ;; *) echo cut short >&2; exit 1;; esac\nprintf %%s \"$request\" >$D/request\n%s", w.shared, body))
}

// answered is the line of a script that answers with a CID.
func answered(cid string) string {
	return `echo '{"result":"` + cid + `","error":null,"log":""}'`
}

// configure writes quiesce-cpi's configuration, and the director's with the bus in it.
func (w *world) configure(bus, settings string) {
	w.t.Helper()
	director := filepath.Join(w.dir, "director.yml")
	w.must(os.WriteFile(director, fmt.Appendf(nil, `{"name":"mini","port":25556,"mbus":%q,"nats":%s}`, bus, w.certificates), 0o644))
	w.config = filepath.Join(w.dir, "quiesce-cpi.yml")
	for _, usual := range []string{"lease: 2s", "no_daemon_timeout: 1s"} {
		if key, _, _ := strings.Cut(usual, " "); !strings.Contains(settings, key) {
			settings += "\n" + usual
		}
	}
	text := fmt.Sprintf("director_config: %s\nsocket: %s\n%s\n", director, w.socket(), settings)
	w.must(os.WriteFile(w.config, []byte(text), 0o644))
}

func (w *world) socket() string { return filepath.Join(w.dir, "run", "q.sock") }

// start starts the daemon, with the bus at an address, and the keys of its certificate.
func (w *world) start(bus string, certificate ...string) {
	w.t.Helper()
	text := fmt.Sprintf(`enable_snapshots: true
state_dir: %[1]s/state
listen: {socket: %[2]s, holders: "%[3]d", metrics: ""}
instance: {deployment: cf, job: db, index: 0, id: inst-1, agent_id: %[4]s}
disks: [{cid: disk-1, mounts: [%[5]s]}%[8]s]
nats: {urls: ["%[6]s"]%[7]s}
processes: {root: %[1]s, hooks: %[1]s/hooks}
`, w.dir, w.socket(), vcap, apitest.AgentID, w.disk.Mount, bus, strings.Join(certificate, ""), w.disks)
	config := filepath.Join(w.dir, "q.yml")
	w.must(os.WriteFile(config, []byte(text), 0o600))
	w.daemon = exec.Command(filepath.Join(binaries, "quiesced"), "serve", "--config", config)
	w.daemon.Stderr = w.log
	w.daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	w.must(w.daemon.Start())
	w.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) { _ = cmd.Wait(); close(ended) }(w.daemon, w.ended)
	w.eventually("the daemon answers", func() bool { _, err := w.client().Info(context.Background()); return err == nil })
}

// slowRest has the VM come to rest only when the file "rest" is there. It makes the file
// "bringing" when that begins.
func (w *world) slowRest() {
	w.t.Helper()
	hooks := filepath.Join(w.dir, "hooks")
	w.must(os.Mkdir(hooks, 0o755))
	text := fmt.Sprintf("#!/bin/sh\ntouch %[1]s/bringing\nuntil [ -e %[1]s/rest ] || [ ! -e %[1]s ]; do sleep 0.02; done\n", w.shared)
	w.must(os.WriteFile(filepath.Join(hooks, "pre-snapshot"), []byte(text), 0o755))
}

// onBus says whether the daemon answers there.
func (w *world) onBus() bool {
	d := director{config: filepath.Join(w.dir, "director.yml")}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s := snapshotOf(w.t, w.request("disk-1"))
	link, err := d.dial(ctx, s)
	if err != nil {
		return false
	}
	defer link.Close()
	_, err = api.Client{Caller: link}.Info(ctx)
	return err == nil
}

// client is root's at the daemon's socket.
func (w *world) client() api.Client { return api.Client{Caller: httpapi.NewClient(w.socket())} }

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
	_ = w.daemon.Process.Signal(syscall.SIGCONT)
	_ = w.daemon.Process.Signal(syscall.SIGTERM)
	select {
	case <-w.ended:
	case <-time.After(patience):
		_ = w.daemon.Process.Kill()
		<-w.ended
		w.t.Error("the daemon did not end within 20 s of SIGTERM")
	}
	w.daemon = nil
	if w.t.Failed() {
		w.t.Logf("the daemon logged:\n%s", w.log)
	}
}
