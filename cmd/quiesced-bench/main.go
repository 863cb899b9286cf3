// quiesced-bench measures, on real filesystems, for how long a freeze holds up
// whoever writes there: quiesced beside fsfreeze(8), qemu-ga and the bare ioctls
// in the same run; and for how long jobs are down that a real monit stops and starts,
// beside a driver that polls as bosh-agent does; what quiesce-cpi costs before a CPI;
// and how fast the daemon answers on a bus, beside a subscriber that does nothing else.
// It prints medians and ratios, and leaves nothing behind. It needs root, and a machine with nothing else to do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// roles are what the program does as a child of its own.
var roles = map[string]func(args []string, in io.Reader, out io.Writer) error{
	"writer": playWriter,
	"stream": playStream,
	"burst":  playBurst,
	"cpi":    playCPI,
	"spin":   playSpin,
	"daemon": playDaemon,
	"job":    playJob,
	"echo":   playEcho,
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && roles[args[0]] != nil {
		if err := roles[args[0]](args[1:], os.Stdin, stdout); err != nil {
			_, _ = fmt.Fprintf(stderr, "%s: %v\n", args[0], err)
			return 1
		}
		return 0
	}
	o, err := parse(args, stderr)
	if err != nil {
		return 2
	}
	if os.Geteuid() != 0 {
		_, _ = fmt.Fprintln(stderr, "this needs root: it makes loop devices, mounts filesystems and freezes them")
		return 1
	}
	s := &stage{out: stdout}
	err = s.play(ctx, o)
	if cleanErr := s.clear(); cleanErr != nil {
		err = errors.Join(err, fmt.Errorf("cannot clean up: %w", cleanErr))
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// options are what is measured.
type options struct {
	parts []string // of "stalls", "many", "kill", "jobs", "front", "bus"
	kinds []string // of filesystem
	sizes []string // MiB dirty before the request
	modes []string // of "burst", "continuous"
	reps  int
	kills int

	processes []int // that are stopped and started
	stopTimes []time.Duration
	cycle     time.Duration // of monit
}

func parse(args []string, stderr io.Writer) (options, error) {
	f := flag.NewFlagSet("quiesced-bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	parts := f.String("parts", "many,kill,stalls", "what to measure; jobs, front and bus are more")
	kinds := f.String("filesystems", "ext4,xfs,btrfs", "on which filesystems")
	sizes := f.String("sizes", "0,64,512,2048", "MiB that are dirty before the request")
	modes := f.String("modes", "burst,continuous", "whether the writing goes on")
	reps := f.Int("reps", 7, "how often each is repeated")
	kills := f.Int("kills", 200, "how often the daemon is killed")
	processes := f.String("processes", "1,10,50", "how many jobs are stopped")
	stopTimes := f.String("stop-times", "0s,3s", "how long a job takes to end")
	cycle := f.Duration("cycle", 10*time.Second, "how often monit looks after its services")
	if err := f.Parse(args); err != nil {
		return options{}, err
	}
	list := func(text *string) []string { return strings.Split(*text, ",") }
	o := options{
		parts: list(parts), kinds: list(kinds), sizes: list(sizes), modes: list(modes),
		reps: *reps, kills: *kills, cycle: *cycle,
	}
	var err, durationErr error
	o.processes, err = each(list(processes), strconv.Atoi)
	o.stopTimes, durationErr = each(list(stopTimes), time.ParseDuration)
	if err = errors.Join(err, durationErr); err != nil {
		_, _ = fmt.Fprintln(stderr, err)
	}
	return o, err
}

func each[T any](texts []string, read func(string) (T, error)) ([]T, error) {
	var all []T
	var errs []error
	for _, text := range texts {
		v, err := read(text)
		all, errs = append(all, v), append(errs, err)
	}
	return all, errors.Join(errs...)
}

// play measures everything that was asked for.
func (s *stage) play(ctx context.Context, o options) error {
	if err := s.build(); err != nil {
		return err
	}
	parts := map[string]func(context.Context, options) error{"many": s.many, "kill": s.kill, "stalls": s.stalls, "jobs": s.jobs, "front": s.front, "bus": s.bus}
	for _, part := range o.parts {
		measure, ok := parts[part]
		if !ok {
			return fmt.Errorf("there is no part %q", part)
		}
		if err := measure(ctx, o); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	return ctx.Err()
}
