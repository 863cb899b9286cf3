package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// library is a line of ldd's.
var library = regexp.MustCompile(`(/\S+) \(0x`)

// qemuGA runs QEMU's guest agent. It freezes every filesystem that it sees, so
// it sees but the one to be frozen: its root is a tmpfs with copies of what it
// needs.
func (s *stage) qemuGA(ctx context.Context, mount string) (method, error) {
	root := filepath.Join(s.memory, "qemu-ga")
	if err := s.furnish(root, mount); err != nil {
		return method{}, fmt.Errorf("cannot set up qemu-ga: %w", err)
	}
	cmd := exec.Command("/qemu-ga", "-m", "unix-listen", "-p", "/run/qga.sock", "-t", "/run", "-f", "/run/qga.pid")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	if err := cmd.Start(); err != nil {
		return method{}, err
	}
	s.later(func() error {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil
	})
	var conn net.Conn
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var err error
		if conn, err = (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(root, "run", "qga.sock")); err == nil {
			break
		} else if time.Now().After(until) {
			return method{}, err
		}
	}
	s.later(conn.Close)
	agent := qga{conn, bufio.NewReader(conn)}
	return method{"qemu-ga", func() (held, error) {
		return holding(
			func() error { return agent.execute("guest-fsfreeze-freeze") },
			func() error { return agent.execute("guest-fsfreeze-thaw") })
	}}, nil
}

// furnish makes the root.
func (s *stage) furnish(root, mount string) error {
	for _, dir := range []string{"run", "proc", "mnt", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	s.later(func() error { return os.RemoveAll(root) })
	binary, err := exec.LookPath("qemu-ga")
	if err != nil {
		return err
	}
	libraries, err := command("ldd", binary)
	if err != nil {
		return err
	}
	if err := copyFile(binary, filepath.Join(root, "qemu-ga")); err != nil {
		return err
	}
	for _, found := range library.FindAllStringSubmatch(libraries, -1) {
		if err := copyFile(found[1], filepath.Join(root, found[1])); err != nil {
			return err
		}
	}
	device, err := command("findmnt", "-no", "SOURCE", mount)
	if err == nil { // it passes over a btrfs whose device it cannot see
		_, err = command("cp", "-a", strings.TrimSpace(device), filepath.Join(root, "dev"))
	}
	if err != nil {
		return err
	}
	for _, m := range []struct {
		source, at, kind string
		flags            uintptr
	}{{"proc", "proc", "proc", 0}, {mount, "mnt", "", unix.MS_BIND}} {
		at := filepath.Join(root, m.at)
		if err := unix.Mount(m.source, at, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("cannot mount %s: %w", at, err)
		}
		s.later(func() error { return unix.Unmount(at, unix.MNT_DETACH) })
	}
	return nil
}

func copyFile(from, to string) error {
	contents, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, contents, 0o755)
}

// qga is a connection to the agent.
type qga struct {
	conn net.Conn
	in   *bufio.Reader
}

func (q qga) execute(name string) error {
	if _, err := fmt.Fprintf(q.conn, `{"execute":%q}`+"\n", name); err != nil {
		return err
	}
	line, err := q.in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var answer struct {
		Return int
		Error  *struct{ Desc string }
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return err
	}
	switch {
	case answer.Error != nil:
		return errors.New(answer.Error.Desc)
	case answer.Return != 1:
		return fmt.Errorf("%s was for %d filesystems, not for 1", name, answer.Return)
	}
	return nil
}
