package jobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
)

// cgroup is the control group of one script, below our own.
type cgroup struct {
	path string
	dir  *os.File // nil for one that was found
}

// cgroupPrefix begins the names of scripts' control groups; a mark follows.
const cgroupPrefix = "quiesced-script:"

// newCgroup makes a control group. It is nil where there is no cgroup2, or none that
// may be changed.
func newCgroup(m mark) *cgroup {
	own := ownCgroup()
	if own == "" {
		return nil
	}
	path, err := os.MkdirTemp(own, cgroupPrefix+string(m)+":*")
	if err != nil {
		return nil
	}
	g := &cgroup{path: path}
	if g.dir, err = os.Open(path); err != nil {
		g.remove()
		return nil
	}
	return g
}

// ownCgroup is the directory of our own control group, "" if it cannot be seen.
func ownCgroup() string {
	at, root := cgroupMount()
	text, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok && at != "" {
			if rel, err := filepath.Rel(root, path); err == nil && filepath.IsLocal(rel) {
				return filepath.Join(at, rel)
			}
		}
	}
	return ""
}

// cgroupMount is where cgroup2 is mounted, alone or beside version 1, and which
// control group is to be seen there. It is "" if it is nowhere.
func cgroupMount() (at, root string) {
	found, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2"))
	if err != nil || len(found) == 0 {
		return "", ""
	}
	return found[0].Mountpoint, found[0].Root
}

func (g *cgroup) add(pid int) error { return g.write(g.path, "cgroup.procs", strconv.Itoa(pid)) }

func (g *cgroup) write(dir, name, text string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0) // it is never made
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// populated says whether anything in the control group, or below it, has not ended.
// A process has ended when nobody has waited for it yet, too.
func (g *cgroup) populated() bool {
	text, _ := os.ReadFile(filepath.Join(g.path, "cgroup.events"))
	return strings.Contains(string(text), "populated 1")
}

// processes are those in the control group and in what was made below it.
func (g *cgroup) processes() []int {
	var all []int
	for _, dir := range g.tree() {
		text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				all = append(all, pid)
			}
		}
	}
	return all
}

// tree are the directories of the control group, its own first.
func (g *cgroup) tree() []string {
	var all []string
	_ = filepath.WalkDir(g.path, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			all = append(all, path)
		}
		return nil
	})
	return all
}

// kill ends all that is in the control group, and returns when it has ended. It
// does so again and again: before Linux 5.14 a process may be forked in between.
func (g *cgroup) kill(ctx context.Context) error {
	return until(ctx, func() bool {
		if !g.populated() {
			return true
		}
		if g.write(g.path, "cgroup.kill", "1") != nil {
			for _, pid := range g.processes() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		return false
	})
}

// release moves all that is in the control group to our own, where it is left
// alone, and removes the group.
func (g *cgroup) release() {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	_ = until(ctx, func() bool {
		for _, pid := range g.processes() {
			_ = g.write(filepath.Dir(g.path), "cgroup.procs", strconv.Itoa(pid))
		}
		return !g.populated()
	})
	g.remove()
}

// remove removes an empty control group, and those in it.
func (g *cgroup) remove() {
	for _, dir := range slices.Backward(g.tree()) {
		_ = syscall.Rmdir(dir)
	}
	if g.dir != nil {
		_ = g.dir.Close()
	}
}

// until tries until it is done, first at once.
func until(ctx context.Context, done func() bool) error {
	for !done() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("it has not ended: %w", context.Cause(ctx))
		}
	}
	return nil
}
