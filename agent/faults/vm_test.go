package faults_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/httpapi"
	"github.com/quiesced/quiesced/agent/wire"
	"github.com/quiesced/quiesced/quiesce/guard"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// patience bounds every wait for something that should come.
const patience = 40 * time.Second

// vm is the configuration, the CPI and the daemon of one case.
type vm struct {
	bed    *bed
	dir    string
	points string // the failpoints' directory
	client api.Client
	daemon *exec.Cmd
	ended  chan struct{} // closed when the daemon has been waited for
	thawed func()        // ends the safety thaw
	lost   bool          // what the daemon had recorded was removed
}

const config = `enable_snapshots: true
state_dir: %[1]s/state
listen: {socket: %[1]s/run/q.sock, metrics: ""}
instance: {deployment: cf, job: db, index: 0, id: inst-1, agent_id: agent-1}
disks: [{cid: disk-1, mounts: [%[2]s]}]
cpi: {path: %[1]s/cpi}
budgets: {pre_stop: 30s, drain: 30s, stop: 30s, lock: 30s, pre_sync: 30s, frozen: 6s, snapshot: 10s, resume: 30s}
log: {level: debug}
%[3]s`

// script is the CPI. It has failpoints, too, and keeps a list of the snapshots
// that it made, each with the time before and the time after, and one of those
// of which it answered. Of what it deleted it keeps a directory each: what is there
// cannot be deleted again.
const script = `#!/bin/sh
dir=%s
hit() {
	[ -e $dir/points/$1 ] && mv $dir/points/$1 $dir/points/$1.hit || return
	echo $$ >$dir/points/$1.hit
	while [ -e $dir/points/$1.hit ]; do sleep 0.01; done
}
echo $$ >$dir/cpi.pid
request=$(cat)
case "$request" in
*'"method":"info"'*) echo '{"result":{"api_version":2,"stemcell_formats":[]},"error":null,"log":""}'; exit;;
*'"api_version":2}') ;;
*) exit 1;;
esac
case "$request" in
*'"method":"delete_snapshot"'*)
	cid=${request#*'"arguments":["'}
	cid=${cid%%%%\"*}
	hit cpi-delete-told
	mkdir -p $dir/deleted
	if mkdir $dir/deleted/$cid 2>/dev/null; then
		hit cpi-deleted
		echo '{"result":null,"error":null,"log":""}'
	else
		echo '{"result":null,"error":{"type":"Unknown","message":"The snapshot '"'$cid'"' does not exist.","ok_to_retry":false},"log":""}'
	fi
	exit;;
esac
hit cpi-told
began=$(date +%%s%%N)
cid=snap-$$-$began
sleep 0.02
echo $cid $began $(date +%%s%%N) >>$dir/made
hit cpi-made
printf '{"result":"%%s"' $cid
hit cpi-midway
printf ',"error":null,"log":""}\n'
echo $cid >>$dir/answered
hit cpi-answered
`

// newVM starts a daemon for a case on a bed.
func newVM(b *bed) (*vm, error) {
	b.cases++
	v := &vm{bed: b, dir: filepath.Join(b.dir, strconv.Itoa(b.cases))}
	v.points = filepath.Join(v.dir, "points")
	v.client = api.Client{Caller: httpapi.NewClient(filepath.Join(v.dir, "run", "q.sock"))}
	stop, err := loopfs.ThawAfter(b.disk.Mount, 2*patience)
	if err != nil {
		return nil, err
	}
	v.thawed = stop
	if err := os.MkdirAll(v.points, 0o700); err != nil {
		return nil, err
	}
	return v, errors.Join(
		os.RemoveAll(filepath.Join(b.disk.Mount, "quiesced")), // the catalogue of the case before
		b.log.Truncate(0), b.site.forget(),
		os.WriteFile(filepath.Join(v.dir, "q.yml"), fmt.Appendf(nil, config, v.dir, b.disk.Mount, b.site.config()), 0o600),
		os.WriteFile(filepath.Join(v.dir, "cpi"), fmt.Appendf(nil, script, v.dir), 0o700),
		v.start(), v.answers())
}

// start starts the daemon.
func (v *vm) start() error {
	log, err := os.OpenFile(filepath.Join(v.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	v.daemon = exec.Command(filepath.Join(binaries, "quiesced"), "serve", "--config", filepath.Join(v.dir, "q.yml"))
	v.daemon.Stderr = log
	v.daemon.Env = append(os.Environ(), "QUIESCED_FAILPOINTS="+v.points)
	v.daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := v.daemon.Start(); err != nil {
		return err
	}
	v.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) { _ = cmd.Wait(); close(ended) }(v.daemon, v.ended)
	return nil
}

// answers waits until the daemon does.
func (v *vm) answers() error {
	return eventually("the daemon answers", func() bool {
		_, err := v.status()
		return err == nil
	})
}

// close ends the daemon as its supervisor would.
func (v *vm) close() error {
	defer v.thawed()
	if v.daemon == nil || v.daemon.Process == nil {
		return nil
	}
	_ = v.daemon.Process.Signal(syscall.SIGTERM)
	select {
	case <-v.ended:
		return nil
	case <-time.After(patience):
		_ = v.daemon.Process.Kill()
		return fmt.Errorf("the daemon did not end within %s of SIGTERM", patience)
	}
}

// begin asks for a run. The channel is closed when that was answered, or cannot
// be any more.
func (v *vm) begin(id string) chan error {
	answered := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		defer close(answered)
		if v.bed.kind.holds {
			answered <- v.hold(ctx, id)
			return
		}
		_, err := v.client.Take(ctx, agent.Request{ID: id, Level: v.bed.kind.level, Wait: true})
		answered <- err
	}()
	return answered
}

func (v *vm) status() (api.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return v.client.Status(ctx)
}

// reports waits for the report of a run, and is all that there are of it.
func (v *vm) reports(id string, limit time.Duration) (found []wire.Report, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for until := time.Now().Add(limit); len(found) == 0 && time.Now().Before(until); time.Sleep(30 * time.Millisecond) {
		all, err := v.client.Runs(ctx)
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			if r.ID == id {
				found = append(found, r)
			}
		}
	}
	return found, nil
}

// guardPID is the pid of the guard of a run, as its state file has it.
func (v *vm) guardPID(id string) (int, error) {
	text, err := os.ReadFile(filepath.Join(v.dir, "run", "guard-"+id+".state"))
	if err != nil {
		return 0, err
	}
	record, err := guard.ParseRecord(text)
	if err != nil {
		return 0, err
	}
	return record.Guard.PID, nil
}

func (v *vm) cpiPID() (int, error) {
	text, err := os.ReadFile(filepath.Join(v.dir, "cpi.pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// lines are the lines of a file of the CPI's, in words.
func (v *vm) lines(name string) [][]string {
	text, _ := os.ReadFile(filepath.Join(v.dir, name))
	var all [][]string
	for line := range strings.Lines(string(text)) {
		all = append(all, strings.Fields(line))
	}
	return all
}

func eventually(what string, done func() bool) error { return within(patience, what, done) }

func within(limit time.Duration, what string, done func() bool) error {
	until := time.Now().Add(limit)
	for !done() {
		if time.Now().After(until) {
			return fmt.Errorf("waited %s in vain: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}
