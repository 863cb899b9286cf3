package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/httpapi"
)

// ioctls of linux/fs.h.
const (
	fiFreeze = 0xC0045877
	fiThaw   = 0xC0045878
)

// hold is the time that a snapshot is taken to need.
const hold = 100 * time.Millisecond

// held is when a freeze was held: from when it was known to be in place to just
// before the thaw was asked for.
type held struct{ from, to time.Duration }

// method freezes a mount, holds it, and thaws it.
type method struct {
	name string
	do   func() (held, error)
}

// holding is the freeze as its holder sees it.
func holding(freeze, thaw func() error) (held, error) {
	if err := freeze(); err != nil {
		return held{}, err
	}
	h := held{from: now()}
	time.Sleep(hold)
	h.to = now()
	return h, thaw()
}

// bare is the ioctls alone.
func bare(mount string) method {
	return method{"ioctls", func() (held, error) {
		f, err := os.Open(mount)
		if err != nil {
			return held{}, err
		}
		defer f.Close()
		fd := int(f.Fd())
		return holding(
			func() error { return unix.IoctlSetInt(fd, fiFreeze, 0) },
			func() error { return unix.IoctlSetInt(fd, fiThaw, 0) })
	}}
}

// fsfreeze is util-linux's program.
func fsfreeze(mount string) method {
	return method{"fsfreeze", func() (held, error) {
		return holding(
			func() error { return exec.Command("fsfreeze", "-f", mount).Run() },
			func() error { return exec.Command("fsfreeze", "-u", mount).Run() })
	}}
}

const configuration = `enable_snapshots: true
state_dir: %[1]s/state
listen: {socket: %[1]s/run/q.sock, metrics: ""}
instance: {deployment: bench, job: db, index: 0}
disks: [{cid: disk-1, mounts: [%[2]s]}]
cpi: {path: %[1]s/cpi}
log: {level: warn}
`

// ours runs a daemon whose CPI needs the hold to snapshot.
func (s *stage) ours(ctx context.Context, mount string) (method, error) {
	dir, err := os.MkdirTemp(s.memory, "daemon-")
	if err != nil {
		return method{}, err
	}
	s.later(func() error { return os.RemoveAll(dir) })
	client, err := s.serve(ctx, dir, fmt.Sprintf(configuration, dir, mount))
	if err != nil {
		return method{}, err
	}
	return method{"quiesced", func() (held, error) {
		return take(ctx, client, agent.LevelFreeze, filepath.Join(dir, "held"))
	}}, nil
}

// serve runs a daemon with a configuration, whose CPI is in dir and whose socket is
// dir/run/q.sock.
func (s *stage) serve(ctx context.Context, dir, configuration string) (api.Client, error) {
	_, client, err := s.daemon(ctx, dir, configuration, &complaints{to: os.Stderr})
	return client, err
}

// daemon is serve for who wants the process, and its log elsewhere: nil is nowhere.
func (s *stage) daemon(ctx context.Context, dir, configuration string, log io.Writer) (*exec.Cmd, api.Client, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, api.Client{}, err
	}
	script := fmt.Sprintf("#!/bin/sh\nexec %s cpi %s\n", self, dir)
	config := filepath.Join(dir, "q.yml")
	if err := os.WriteFile(filepath.Join(dir, "cpi"), []byte(script), 0o700); err != nil {
		return nil, api.Client{}, err
	}
	if err := os.WriteFile(config, []byte(configuration), 0o600); err != nil {
		return nil, api.Client{}, err
	}
	cmd := exec.Command(sibling("quiesced"), "serve", "--config", config)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return nil, api.Client{}, err
	}
	s.later(func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		return nil
	})
	client := api.Client{Caller: httpapi.NewClient(filepath.Join(dir, "run", "q.sock"))}
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := client.Info(ctx); err == nil {
			return cmd, client, nil
		} else if time.Now().After(until) {
			return nil, api.Client{}, err
		}
	}
}

// take asks for a snapshot, and returns when its CPI held the freeze.
func take(ctx context.Context, client api.Client, level agent.Level, file string) (held, error) {
	id, err := client.Take(ctx, agent.Request{Level: level})
	if err != nil {
		return held{}, err
	}
	report, err := client.Report(ctx, id)
	if err != nil {
		return held{}, err
	}
	if !report.Clean {
		return held{}, fmt.Errorf("not clean: %+v", report)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return held{}, err
	}
	var from, to int64
	_, err = fmt.Sscan(string(text), &from, &to)
	return held{time.Duration(from), time.Duration(to)}, err
}

// playCPI is a CPI that needs the hold, and tells when that was.
func playCPI(args []string, in io.Reader, out io.Writer) error {
	request, err := io.ReadAll(in)
	from := now()
	if err != nil || len(request) == 0 || request[len(request)-1] != '}' {
		return fmt.Errorf("the request is cut short: %w", err)
	}
	if string(request[:16]) == `{"method":"info"` {
		_, err = fmt.Fprintln(out, `{"result":{"api_version":2,"stemcell_formats":[]},"error":null,"log":""}`)
		return err
	}
	time.Sleep(hold)
	to := now()
	_, err = fmt.Fprintf(out, `{"result":"snap-%d","error":null,"log":""}`+"\n", to)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(args[0], "held"), fmt.Append(nil, int64(from), " ", int64(to)), 0o600)
}
