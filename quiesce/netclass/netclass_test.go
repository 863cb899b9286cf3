package netclass_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/quiesce/netclass"
)

// A real net_cls hierarchy, with the group that bosh-agent makes.
func TestTheWholeProcessJoinsTheFirewallsGroup(t *testing.T) {
	root := filepath.Join(t.TempDir(), "net cls")
	must(t, os.Mkdir(root, 0o755))
	must(t, unix.Mount("net_cls", root, "cgroup", 0, "net_cls"))
	t.Cleanup(func() { must(t, unix.Unmount(root, 0)) })

	member := exec.Command("sleep", "100")
	must(t, member.Start())
	t.Cleanup(func() { _ = member.Process.Kill(); _ = member.Wait() })
	join := func() (bool, error) {
		return netclass.JoinOf("/proc/self/mountinfo", netclass.Monit, member.Process.Pid)
	}

	if joined, err := join(); joined || err != nil {
		t.Errorf("without a group it answers %v, %v", joined, err)
	}
	group := filepath.Join(root, netclass.Monit)
	must(t, os.Mkdir(group, 0o755))
	t.Cleanup(func() {
		must(t, os.WriteFile(filepath.Join(root, "cgroup.procs"), fmt.Append(nil, member.Process.Pid), 0))
		must(t, os.Remove(group))
	})
	must(t, os.WriteFile(filepath.Join(group, "net_cls.classid"), []byte("0xb0540001"), 0))
	if joined, err := join(); !joined || err != nil {
		t.Errorf("with a group it answers %v, %v", joined, err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", member.Process.Pid))
	must(t, err)
	if !strings.Contains(string(b), ":net_cls:/"+netclass.Monit+"\n") {
		t.Errorf("its groups are\n%s", b)
	}
}

func TestWithoutNetClsNothingIsJoined(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mountinfo")
	must(t, os.WriteFile(file, []byte("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n40 31 0:37 / /c rw shared:1 - cgroup cgroup rw,cpu\n"), 0o644))
	if joined, err := netclass.JoinOf(file, netclass.Monit, os.Getpid()); joined || err != nil {
		t.Errorf("it answers %v, %v", joined, err)
	}
}

func TestAGroupThatCannotBeJoinedIsAnError(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "mountinfo")
	must(t, os.MkdirAll(filepath.Join(dir, netclass.Monit, "cgroup.procs"), 0o755))
	must(t, os.WriteFile(file, fmt.Appendf(nil, "40 31 0:37 / %s rw - cgroup cgroup rw,net_cls,net_prio\n", dir), 0o644))
	if joined, err := netclass.JoinOf(file, netclass.Monit, os.Getpid()); joined || err == nil {
		t.Errorf("it answers %v, %v", joined, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
