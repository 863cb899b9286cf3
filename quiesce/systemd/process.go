package systemd

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

	"github.com/quiesced/quiesced/quiesce/jobs"
	"github.com/quiesced/quiesced/quiesce/jobs/processes"
)

// processes are those in a control group and in the groups below it. The group
// may be gone, or systemd may have none for a unit.
func (s *Supervisor) processes(group string) ([]jobs.Process, error) {
	if group == "" || group == "/" {
		return nil, nil
	}
	var all []jobs.Process
	err := filepath.WalkDir(filepath.Join(s.hierarchy(), group), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() || d.Name() != "cgroup.procs" {
			return err
		}
		members, err := readMembers(path)
		all = append(all, members...)
		return err
	})
	slices.SortFunc(all, func(a, b jobs.Process) int { return a.PID - b.PID })
	return all, err
}

// hierarchy is where systemd's control groups are: the unified hierarchy, or the
// named one where that is not the only one.
func (s *Supervisor) hierarchy() string {
	base := s.config.Root + "/sys/fs/cgroup"
	if _, err := os.Stat(base + "/cgroup.controllers"); err == nil {
		return base
	}
	return base + "/systemd"
}

// readMembers reads a cgroup.procs. Those of a threaded group are in its parent's.
func readMembers(path string) ([]jobs.Process, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []jobs.Process
	for line := range strings.Lines(string(text)) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			return nil, fmt.Errorf("cannot read %q: %w", path, err)
		}
		if p, ok := processes.Find(pid); ok {
			all = append(all, p)
		}
	}
	return all, nil
}

// ended waits until processes and all in a control group have ended, for as long as
// more answers nil, which is asked at least once a second: processes that come up
// again are none to wait for.
func (s *Supervisor) ended(ctx context.Context, group string, listed []jobs.Process, more func() error) error {
	watch, err := processes.NewWatch()
	if err != nil {
		return err
	}
	defer watch.Close()
	for {
		left, err := s.processes(group)
		left = append(left, listed...)
		if err := errors.Join(err, watch.Add(left...)); err != nil {
			return err
		}
		left = slices.DeleteFunc(left, func(p jobs.Process) bool { return !watch.Alive(p) })
		if len(left) == 0 {
			return nil
		}
		if err := more(); err != nil {
			return err
		}
		if err := watch.Wait(ctx, time.Second); err != nil {
			return fmt.Errorf("processes of it go on, %d among them: %w", left[0].PID, err)
		}
	}
}
