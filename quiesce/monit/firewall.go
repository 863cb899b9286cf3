package monit

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// FirewallGroup is the net_cls control group whose processes the firewall of some
// stemcells (Ubuntu jammy's, class 0xb0540001) lets reach monit. bosh-agent makes it.
const FirewallGroup = "monit-api-access"

// JoinFirewallGroup moves the whole calling process into FirewallGroup, and says
// whether there is one. A socket has the class of its process when it is made, so
// this comes before the first.
func JoinFirewallGroup() (bool, error) { return joinFirewallGroup("/proc/self/mountinfo", os.Getpid()) }

func joinFirewallGroup(mountinfo string, pid int) (bool, error) {
	root, err := netClassRoot(mountinfo)
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
func netClassRoot(mountinfo string) (string, error) {
	f, err := os.Open(mountinfo)
	if err != nil {
		return "", fmt.Errorf("cannot look for net_cls: %w", err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		mount, super, _ := strings.Cut(lines.Text(), " - ")
		m, s := strings.Fields(mount), strings.Fields(super)
		if len(m) >= 5 && len(s) >= 3 && s[0] == "cgroup" && slices.Contains(strings.Split(s[2], ","), "net_cls") {
			return unescape(m[4]), nil
		}
	}
	return "", lines.Err()
}

// unescape undoes mountinfo's octal escapes.
func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}
