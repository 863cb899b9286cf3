package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nspawn is a container that a systemd of its own has booted, over an overlay
// of this machine's files.
type nspawn struct {
	t      *testing.T
	name   string
	root   string
	nspawn *exec.Cmd
	ended  chan struct{} // closed when nspawn has been waited for
	leader int           // the container's first process
	said   *bytes.Buffer // by nspawn and the container's console
}

// boot boots a machine. prepare is given the root directory first; shared is a
// directory of this machine's that the container has at the same place.
func boot(t *testing.T, shared string, prepare func(root string)) *nspawn {
	t.Helper()
	dir := t.TempDir()
	m := &nspawn{t: t, name: "quiesced-test-" + strconv.Itoa(os.Getpid()), root: filepath.Join(dir, "root"), said: &bytes.Buffer{}}
	layers := filepath.Join(dir, "layers")
	m.must(os.Mkdir(layers, 0o700))
	m.must(syscall.Mount("layers", layers, "tmpfs", 0, ""))
	t.Cleanup(func() { m.must(syscall.Unmount(layers, 0)) })
	upper, work := filepath.Join(layers, "upper"), filepath.Join(layers, "work")
	m.must(errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755), os.Mkdir(m.root, 0o755)))
	m.must(syscall.Mount("root", m.root, "overlay", 0, "lowerdir=/,upperdir="+upper+",workdir="+work))
	t.Cleanup(func() { m.must(syscall.Unmount(m.root, 0)) })
	prepare(m.root)
	t.Cleanup(m.removeGroups)
	t.Cleanup(m.halt)
	m.start(shared)
	m.eventually("systemd has booted", func() bool {
		out, _ := m.run("systemctl", "is-active", "basic.target")
		return out == "active"
	})
	return m
}

// groups are the directories that the container's control groups lie in: those
// of both hierarchies where the machine has not only the unified one.
func (m *nspawn) groups() []string {
	base := "/sys/fs/cgroup"
	if _, err := os.Stat(base + "/cgroup.controllers"); err == nil {
		return []string{filepath.Join(base, m.name)}
	}
	return []string{filepath.Join(base, "unified", m.name), filepath.Join(base, "systemd", m.name)}
}

// start starts nspawn, in control groups of its own.
func (m *nspawn) start(shared string) {
	m.t.Helper()
	script := `for group in ` + strings.Join(m.groups(), " ") + `; do
	mkdir -p $group && echo $$ >$group/cgroup.procs || exit
done
exec systemd-nspawn -M "$1" -D "$2" --bind="$3" -b --register=no --keep-unit --console=pipe --capability=all systemd.unit=basic.target`
	m.nspawn = exec.Command("sh", "-c", script, "sh", m.name, m.root, shared)
	m.nspawn.Stdout, m.nspawn.Stderr = m.said, m.said
	m.must(m.nspawn.Start())
	m.ended = make(chan struct{})
	go func() { _ = m.nspawn.Wait(); close(m.ended) }()
	m.eventually("the container's first process is there", func() bool {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", m.nspawn.Process.Pid))
		m.leader, _ = strconv.Atoi(strings.TrimSpace(string(children)))
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", m.leader))
		return string(comm) == "systemd\n"
	})
}

// halt ends the container and everything in it.
func (m *nspawn) halt() {
	if m.nspawn == nil || m.nspawn.Process == nil {
		return
	}
	if m.t.Failed() && m.leader > 0 {
		out, _ := m.run("journalctl", "-u", "quiesced", "--no-pager", "-o", "short-monotonic")
		m.t.Logf("the unit's journal:\n%s", out)
	}
	_ = m.nspawn.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.ended:
	case <-time.After(10 * time.Second):
		m.t.Errorf("the container does not end; it said:\n%s", m.said)
		if m.leader > 0 {
			_ = syscall.Kill(m.leader, syscall.SIGKILL)
		}
		_ = m.nspawn.Process.Kill()
		<-m.ended
	}
}

// removeGroups removes the container's control groups, innermost first. The
// kernel may need a moment until the last process is out.
func (m *nspawn) removeGroups() {
	for _, group := range m.groups() {
		m.eventually(group+" is removed", func() bool {
			var inner []string
			_ = filepath.WalkDir(group, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					inner = append([]string{path}, inner...)
				}
				return nil
			})
			for _, path := range inner {
				_ = syscall.Rmdir(path)
			}
			_, err := os.Stat(group)
			return errors.Is(err, fs.ErrNotExist)
		})
	}
}

// command is a command to run in the container. It should end by itself before
// the container does, which would wait long for a process that is none of its own
// and whose end nobody tells it. When ctx ends it is killed, with nsenter.
func (m *nspawn) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(m.leader), "-a"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// run runs a command in the container, and returns what it printed, trimmed.
func (m *nspawn) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), 30*time.Second)
	if m.t.Context().Err() != nil { // in a cleanup
		ctx, cancel = context.WithTimeout(context.Background(), 5*time.Second)
	}
	defer cancel()
	out, err := m.command(ctx, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// do runs a command in the container that must succeed.
func (m *nspawn) do(args ...string) string {
	m.t.Helper()
	out, err := m.run(args...)
	if err != nil {
		m.t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return out
}

// property is one of the unit's properties.
func (m *nspawn) property(name string) string {
	m.t.Helper()
	return m.do("systemctl", "show", "--value", "-p", name, "quiesced")
}

func (m *nspawn) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *nspawn) eventually(what string, done func() bool) time.Duration {
	m.t.Helper()
	began := time.Now()
	for !done() {
		if time.Since(began) > patience {
			m.t.Fatalf("waited %s in vain: %s", patience, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}
