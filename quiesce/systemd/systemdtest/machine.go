// Package systemdtest boots machines with a real systemd, for tests: containers
// over an overlay of this machine's files, in about a second. It needs root and
// systemd-nspawn.
package systemdtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that should come.
const patience = 15 * time.Second

// Machine is a container that a systemd of its own has booted, over an overlay
// of this machine's files. It ends with its test.
type Machine struct {
	t      testing.TB
	name   string
	root   string
	shared string
	nspawn *exec.Cmd
	ended  chan struct{} // closed when nspawn has been waited for
	leader int           // the container's first process
	said   *bytes.Buffer // by nspawn and the container's console
}

// Boot boots a machine. prepare is given the root directory first; shared is a
// directory of this machine's that the container has at the same place.
func Boot(t testing.TB, shared string, prepare func(root string)) *Machine {
	t.Helper()
	dir := t.TempDir()
	m := &Machine{t: t, name: fmt.Sprintf("quiesced-test-%d-%08x", os.Getpid(), rand.Uint32()), root: filepath.Join(dir, "root"), shared: shared, said: &bytes.Buffer{}}
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
	m.boot()
	return m
}

// Cut ends all processes of the machine at once, as a power cut does. What waits in the
// kernel, for a frozen filesystem say, keeps the machine from ending until PowerOn.
func (m *Machine) Cut() {
	m.t.Helper()
	m.Do("sh", "-c", "kill -KILL -1")
	m.must(syscall.Kill(m.leader, syscall.SIGKILL))
}

// PowerOn boots a machine again whose power was cut. Its files but those on a tmpfs are
// as they were; prepare is given its root directory first.
func (m *Machine) PowerOn(prepare func(root string)) {
	m.t.Helper()
	<-m.ended
	m.removeGroups()
	prepare(m.root)
	m.boot()
}

func (m *Machine) boot() {
	m.t.Helper()
	m.start()
	m.eventually("systemd has booted", func() bool {
		out, _ := m.Run("systemctl", "is-active", "basic.target")
		return out == "active"
	})
}

// Root is the root directory as processes of the machine see it, mounts and all.
func (m *Machine) Root() string { return fmt.Sprintf("/proc/%d/root", m.leader) }

// Leader is the machine's first process, which is systemd.
func (m *Machine) Leader() int { return m.leader }

// groups are the directories that the container's control groups lie in: those
// of both hierarchies where the machine has not only the unified one.
func (m *Machine) groups() []string {
	base := "/sys/fs/cgroup"
	if _, err := os.Stat(base + "/cgroup.controllers"); err == nil {
		return []string{filepath.Join(base, m.name)}
	}
	return []string{filepath.Join(base, "unified", m.name), filepath.Join(base, "systemd", m.name)}
}

// start starts nspawn, in control groups of its own.
func (m *Machine) start() {
	m.t.Helper()
	script := `for group in ` + strings.Join(m.groups(), " ") + `; do
	mkdir -p $group && echo $$ >$group/cgroup.procs || exit
done
exec systemd-nspawn -M "$1" -D "$2" --bind="$3" -b --register=no --keep-unit --console=pipe --capability=all systemd.unit=basic.target`
	m.nspawn = exec.Command("sh", "-c", script, "sh", m.name, m.root, m.shared)
	m.nspawn.Stdout, m.nspawn.Stderr = m.said, m.said
	m.must(m.nspawn.Start())
	m.ended = make(chan struct{})
	go func() { _ = m.nspawn.Wait(); close(m.ended) }()
	m.eventually("the container's first process is there", func() bool {
		select {
		case <-m.ended:
			m.t.Fatalf("nspawn has ended; it said:\n%s", m.said)
		default:
		}
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", m.nspawn.Process.Pid))
		m.leader, _ = strconv.Atoi(strings.TrimSpace(string(children)))
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", m.leader))
		return string(comm) == "systemd\n"
	})
}

// halt ends the container and everything in it.
func (m *Machine) halt() {
	if m.nspawn == nil || m.nspawn.Process == nil {
		return
	}
	if m.t.Failed() && m.leader > 0 {
		out, _ := m.Run("journalctl", "--no-pager", "-o", "short-monotonic", "-n", "300")
		m.t.Logf("the end of the machine's journal:\n%s", out)
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
func (m *Machine) removeGroups() {
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

// Command is a command to run in the container. It should end by itself before
// the container does, which would wait long for a process that is none of its own
// and whose end nobody tells it. When ctx ends it is killed, with nsenter.
func (m *Machine) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(m.leader), "-a"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// Run runs a command in the container, and returns what it printed, trimmed.
func (m *Machine) Run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), 30*time.Second)
	if m.t.Context().Err() != nil { // in a cleanup
		ctx, cancel = context.WithTimeout(context.Background(), 5*time.Second)
	}
	defer cancel()
	out, err := m.Command(ctx, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// Do runs a command in the container that must succeed.
func (m *Machine) Do(args ...string) string {
	m.t.Helper()
	out, err := m.Run(args...)
	if err != nil {
		m.t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return out
}

// Property is one of a unit's properties.
func (m *Machine) Property(unit, name string) string {
	m.t.Helper()
	return m.Do("systemctl", "show", "--value", "-p", name, unit)
}

func (m *Machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *Machine) eventually(what string, done func() bool) {
	m.t.Helper()
	began := time.Now()
	for !done() {
		if time.Since(began) > patience {
			m.t.Fatalf("waited %s in vain: %s\nnspawn and the console said:\n%s", patience, what, m.said)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
