// quiesced-demo shows the main job on a real disk: it makes a disk, runs the
// daemon beside a program that writes, plays the director over a real message
// bus, and proves what the snapshot holds. It leaves nothing behind.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer stop()
	// Who reads may go away before everything is cleared away. Ignoring the signal
	// would be inherited by the daemon; catching it is not.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program, and returns its exit code. "write FILE" is the
// writer, which the demonstration starts as a program of its own.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 2 && args[0] == "write" {
		if err := write(ctx, args[1], stdout); err != nil {
			_, _ = fmt.Fprintf(stderr, "writer: %v\n", err)
			return 1
		}
		return 0
	}
	if os.Geteuid() != 0 {
		_, _ = fmt.Fprintln(stderr, "this needs root: it makes loop devices, mounts filesystems and freezes one of them")
		return 1
	}
	s := &stage{out: stdout}
	err := s.play(ctx)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if cleanErr := errors.Join(s.clear(), leftovers(s.dir)); cleanErr != nil {
		_, _ = fmt.Fprintf(stderr, "\ncannot clean up: %v\n", cleanErr)
		return 1
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "\nthe demonstration failed: %v\n", err)
		return 1
	}
	s.say("Looked, and nothing is left behind: no process, mount, loop device or file.")
	return 0
}
