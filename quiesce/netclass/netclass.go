// Package netclass joins the net_cls control groups whose processes the firewall of
// some stemcells (Ubuntu jammy's, with agents of 2022 to 2026) lets reach monit and the
// message bus. bosh-agent makes the groups; a process is in one of them at most.
package netclass

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// The groups.
const (
	Monit = "monit-api-access" // class 0xb0540001
	Bus   = "nats-api-access"  // class 0xb0540002
)

const mountTable = "/proc/self/mountinfo"

// Join moves the whole calling process into a group, and says whether there is one. A
// socket has the class of its process when it is made, so this comes before the first.
func Join(group string) (bool, error) { return join(mountTable, group, os.Getpid()) }

// Exists says whether there is a group.
func Exists(group string) (bool, error) {
	procs, err := members(mountTable, group)
	if err != nil || procs == "" {
		return false, err
	}
	_, err = os.Stat(procs)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func join(table, group string, pid int) (bool, error) {
	procs, err := members(table, group)
	if err != nil || procs == "" {
		return false, err
	}
	f, err := os.OpenFile(procs, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot join the firewall's group: %w", err)
	}
	_, err = f.WriteString(strconv.Itoa(pid))
	if err := errors.Join(err, f.Close()); err != nil {
		return false, fmt.Errorf("cannot join the firewall's group: %w", err)
	}
	return true, nil
}

// members is the file that lists a group's processes, "" without a hierarchy.
func members(table, group string) (string, error) {
	root, err := netClassRoot(table)
	if err != nil || root == "" {
		return "", err
	}
	return filepath.Join(root, group, "cgroup.procs"), nil
}

// netClassRoot is where the net_cls hierarchy is mounted, or "".
func netClassRoot(path string) (string, error) {
	table, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("cannot look for net_cls: %w", err)
	}
	defer func() { _ = table.Close() }()
	found, err := mountinfo.GetMountsFromReader(table, mountinfo.FSTypeFilter("cgroup"))
	if err != nil {
		return "", fmt.Errorf("cannot look for net_cls: %w", err)
	}
	for _, m := range found {
		if slices.Contains(strings.Split(m.VFSOptions, ","), "net_cls") {
			return m.Mountpoint, nil
		}
	}
	return "", nil
}
