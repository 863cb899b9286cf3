package systemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/quiesced/quiesced/quiesce/systemd"
)

// The kernel's own hierarchies are what the other tests see; these are those of
// machines that are set up otherwise.
func TestProcesses(t *testing.T) {
	child := exec.Command("sleep", "infinity")
	must(t, child.Start())
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	for name, layout := range map[string]struct{ base, mark string }{
		"the unified hierarchy":     {"", "cgroup.controllers"},
		"systemd's named hierarchy": {"systemd", "memory"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			base := filepath.Join(root, "sys/fs/cgroup", layout.base)
			inner := filepath.Join(base, "a.slice", "x.service", "inner")
			must(t, os.MkdirAll(inner, 0o755))
			must(t, os.WriteFile(filepath.Join(root, "sys/fs/cgroup", layout.mark), nil, 0o600))
			must(t, os.WriteFile(filepath.Join(inner, "cgroup.procs"), []byte(strconv.Itoa(child.Process.Pid)+"\n"), 0o600))
			must(t, os.WriteFile(filepath.Join(inner, "..", "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())+"\n0\n"), 0o600))
			found, err := systemd.Processes(systemd.New(systemd.Config{Root: root}), "/a.slice/x.service")
			must(t, err)
			if len(found) != 2 || found[0].PID != min(os.Getpid(), child.Process.Pid) || found[1].PID != max(os.Getpid(), child.Process.Pid) {
				t.Errorf("processes are %v, want %d and %d", found, os.Getpid(), child.Process.Pid)
			}
		})
	}
}
