package writeout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// Done is what a run did.
type Done struct {
	Bytes int64
	Files int
}

// grace is what a child that was killed is given to end. One that is held up in
// the kernel is left to end when it can.
const grace = 200 * time.Millisecond

// Run runs the child that cmd prepares with the arguments it is given, for the
// filesystems at the mount points and at most for limit. Where little is dirty
// on the machine it does nothing.
func Run(ctx context.Context, command func(args ...string) *exec.Cmd, limit time.Duration, mounts []string) (Done, error) {
	if Dirty() <= Little {
		return Done{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit+grace)
	defer cancel()
	cmd := command(append([]string{"write-out", limit.String()}, mounts...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return Done{}, fmt.Errorf("cannot write out ahead: %w", err)
	}
	ended := make(chan struct{})
	var endErr error
	go func() { endErr = cmd.Wait(); close(ended) }()
	select {
	case <-ended:
		return parseDone(out.String(), endErr)
	case <-ctx.Done():
	}
	_ = cmd.Process.Kill()
	select {
	case <-ended:
	case <-time.After(grace):
	}
	return Done{}, fmt.Errorf("cannot write out ahead: %w", context.Cause(ctx))
}

// parseDone reads what the child printed, err being how it ended.
func parseDone(text string, err error) (Done, error) {
	var d Done
	if err == nil {
		if n, scanErr := fmt.Sscanf(text, "%d %d\n", &d.Bytes, &d.Files); n != 2 || scanErr != nil {
			err = errors.New("it does not say what it did")
		}
	}
	if err != nil {
		return Done{}, fmt.Errorf("cannot write out ahead: %w: %.200q", err, text)
	}
	return d, nil
}
