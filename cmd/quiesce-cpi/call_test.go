package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quiesced/quiesced/agent/api/apitest"
	"github.com/quiesced/quiesced/agent/wire"
)

// request is a director's, for a snapshot of a disk.
func (w *world) request(disk string) string {
	return fmt.Sprintf(`{"method":"snapshot_disk","arguments":["%s",{"deployment":"cf","job":"db","index":0,"director_name":"mini","director_uuid":"%s","agent_id":"%s","instance_id":"inst-1","agent_id":"spoofed"}],"context":{"director_uuid":"%s","request_id":"cpi-348175","root":"%s"},"api_version":2}`,
		disk, directorUUID, apitest.AgentID, directorUUID, w.shared)
}

// ofSelf is the request about the director's own VM.
func ofSelf(request string) string {
	return strings.Replace(request, `"agent_id":"`+apitest.AgentID, `"agent_id":"self`, 1)
}

// asWorker makes a command one of a director's worker: its uid, no groups, its
// environment.
func asWorker(cmd *exec.Cmd) *exec.Cmd {
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent", "TMPDIR=/nonexistent/tmp"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: vcap, Gid: vcap}, Setpgid: true}
	return cmd
}

// answer is what a director gets of a call.
type answer struct {
	stdout, stderr string
	state          *os.ProcessState
	took           time.Duration
}

// call is a call that is under way.
type call struct {
	cmd   *exec.Cmd
	ended chan answer
}

// begin has a worker call quiesce-cpi, as a director does it.
func (w *world) begin(request string) *call {
	w.t.Helper()
	return w.beginWith(asWorker(w.command()), request, nil)
}

func (w *world) command() *exec.Cmd {
	return exec.Command(filepath.Join(binaries, "quiesce-cpi"), "-config", w.config, "-cpi", w.cpi)
}

// beginWith begins a call whose stderr goes to a file, or is read where that is nil.
func (w *world) beginWith(cmd *exec.Cmd, request string, stderr *os.File) *call {
	w.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(request), &out, &errs
	if stderr != nil {
		cmd.Stderr = stderr
	}
	c := &call{cmd: cmd, ended: make(chan answer, 1)}
	began := time.Now()
	w.must(cmd.Start())
	go func() {
		_ = cmd.Wait() // reads both pipes to their ends, too
		c.ended <- answer{out.String(), errs.String(), cmd.ProcessState, time.Since(began)}
	}()
	w.t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	return c
}

// end waits for a call's end.
func (w *world) endOf(c *call) answer {
	w.t.Helper()
	select {
	case a := <-c.ended:
		return a
	case <-time.After(2 * patience):
		w.t.Fatal("the call does not end")
		return answer{}
	}
}

func (w *world) call(request string) answer {
	w.t.Helper()
	return w.endOf(w.begin(request))
}

// mustAnswer wants a call's answer to be a script's.
func (w *world) mustAnswer(a answer, cid string) {
	w.t.Helper()
	want := `{"result":"` + cid + `","error":null,"log":""}` + "\n"
	if a.stdout != want || !a.state.Success() {
		w.t.Errorf("stdout %q, want %q; it ended with %v; stderr %q", a.stdout, want, a.state, a.stderr)
	}
}

func (w *world) contains(what, text string, parts ...string) {
	w.t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			w.t.Errorf("%s has no %q: %q", what, part, text)
		}
	}
}

func (w *world) eventually(what string, condition func() bool) time.Duration {
	w.t.Helper()
	began := time.Now()
	for !condition() {
		if time.Since(began) > patience {
			w.t.Fatalf("this does not happen: %s; the daemon logged:\n%s", what, w.log)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began)
}

func (w *world) exists(name string) bool {
	_, err := os.Stat(filepath.Join(w.shared, name))
	return err == nil
}

// signalCPI makes the file that the CPI's script waits for.
func (w *world) signalCPI(name string) {
	w.t.Helper()
	w.must(os.WriteFile(filepath.Join(w.shared, name), nil, 0o644))
}

// frozen says whether a file cannot be made on the disk within a moment.
func (w *world) frozen() bool {
	w.t.Helper()
	made := make(chan error, 1)
	go func() {
		f, err := os.CreateTemp(w.disk.Mount, "probe-")
		if err == nil {
			err = f.Close()
		}
		made <- err
	}()
	select {
	case err := <-made:
		w.must(err)
		return false
	case <-time.After(100 * time.Millisecond):
		return true
	}
}

// mustThaw wants the disk to take writes.
func (w *world) mustThaw() {
	w.t.Helper()
	w.eventually("the disk is thawed", func() bool { return !w.frozen() })
}

// snapshots is the daemon's catalogue.
func (w *world) snapshots() []wire.Snapshot {
	w.t.Helper()
	all, err := w.client().Snapshots(context.Background())
	w.must(err)
	return all
}

// mustCatalogue wants the catalogue to hold one snapshot, so.
func (w *world) mustCatalogue(cid string, clean bool) {
	w.t.Helper()
	all := w.snapshots()
	if len(all) != 1 || all[0].CID != cid || all[0].Clean != clean || all[0].State != "known" || all[0].Trigger != "director" {
		w.t.Errorf("the catalogue is %+v, want %q, clean %v", all, cid, clean)
	}
}

// alerts has the health monitor listen. The function returns what it has heard.
func (w *world) alerts() func() []string {
	w.t.Helper()
	conn, err := nats.Connect(w.bus.URL("hm"))
	w.must(err)
	w.t.Cleanup(conn.Close)
	heard, err := conn.SubscribeSync("hm.director.alert")
	w.must(err)
	w.must(conn.Flush())
	return func() (all []string) {
		w.must(conn.Flush())
		for n, _, _ := heard.Pending(); n > 0; n-- {
			m, err := heard.NextMsg(time.Second)
			w.must(err)
			all = append(all, string(m.Data))
		}
		return all
	}
}

// mustAlert wants the health monitor to have heard one alert.
func (w *world) mustAlert(alerts func() []string, parts ...string) {
	w.t.Helper()
	var all []string
	w.eventually("an alert is heard", func() bool { all = append(all, alerts()...); return len(all) > 0 })
	var a map[string]any
	w.must(json.Unmarshal([]byte(all[0]), &a))
	if len(all) != 1 || a["severity"] != 3.0 || a["source"] != "quiesce-cpi" {
		w.t.Errorf("alerts: %q", all)
	}
	w.contains("the alert", all[0], parts...)
}

// drain reads a file to its end.
func drain(r io.Reader) string {
	text, _ := io.ReadAll(r)
	return string(text)
}
