package monit

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

// FirewallGroup is the net_cls control group whose processes the firewall of some
// stemcells (Ubuntu jammy's, class 0xb0540001) lets reach monit. bosh-agent makes it.
const FirewallGroup = "monit-api-access"

// JoinFirewallGroup moves the whole calling process into FirewallGroup, and says
// whether there is one. A socket has the class of its process when it is made, so
// this comes before the first.
func JoinFirewallGroup() (bool, error) { return joinFirewallGroup("/proc/self/mountinfo", os.Getpid()) }

func joinFirewallGroup(table string, pid int) (bool, error) {
	root, err := netClassRoot(table)
	if err != nil || root == "" {
		return false, err
	}
	procs := filepath.Join(root, FirewallGroup, "cgroup.procs")
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
