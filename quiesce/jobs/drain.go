package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Drain runs drain scripts all at once, each for as long as it asks for, which must
// not be longer than what is left of the budget: a job that was drained takes no
// work, and is not kept so for nothing. told and the error are as in Run.
func (r *Runner) Drain(ctx context.Context, scripts []Script, budget time.Duration, told func(s Script, done bool)) error {
	env := r.Layout.drainVariables()
	return each(scripts, told, func(s Script) error {
		ctx, cancel := within(ctx, budget)
		defer cancel()
		return r.drain(ctx, s, env)
	})
}

// drain runs a script until it says that the job is drained.
func (r *Runner) drain(ctx context.Context, s Script, env []string) error {
	for why := "job_shutdown"; ; why = "job_check_status" {
		c := call{
			script: s, args: []string{why, "hash_unchanged"}, env: env,
			stdout: &output{limit: tailSize}, stderr: &output{limit: tailSize},
		}
		ended := r.run(ctx, c)
		wait, again, err := drained(c.stdout.tail(), ended)
		if err == nil {
			err = sleep(ctx, wait)
		}
		if err != nil || !again {
			return failed(s, err, c.stderr)
		}
	}
}

// drained is what a drain script asks for: to wait, and whether to call it again
// then. If it asks for something, its exit status does not matter.
func drained(printed string, ended error) (wait time.Duration, again bool, err error) {
	if _, byItself := errors.AsType[exitError](ended); ended != nil && !byItself {
		return 0, false, ended
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(printed), 10, 32)
	if err != nil {
		err = fmt.Errorf("printed %q, which is no number of seconds", printed)
		return 0, false, errors.Join(ended, err)
	}
	return time.Duration(max(seconds, -seconds)) * time.Second, seconds < 0, nil
}

// sleep waits, if there is time for it.
func sleep(ctx context.Context, wait time.Duration) error {
	if until, ok := ctx.Deadline(); ok && time.Until(until) < wait {
		return fmt.Errorf("asks to wait %v, which is longer than what is left of its budget", wait)
	}
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return cancelled(ctx)
	}
}

// drainVariables are what drain scripts find in their environment: the state of
// the instance, which stays as it is.
func (l Layout) drainVariables() []string {
	var spec struct {
		PersistentDisk int `json:"persistent_disk"` // MiB
	}
	text, err := os.ReadFile(filepath.Join(l.Root, "bosh", "spec.json"))
	if err != nil || json.Unmarshal(text, &spec) != nil {
		spec.PersistentDisk = 0 // not a BOSH VM, or not one that has been told yet
	}
	state := fmt.Sprintf(`{"persistent_disk":%d}`, spec.PersistentDisk)
	return []string{"BOSH_JOB_STATE=" + state, "BOSH_JOB_NEXT_STATE=" + state}
}
