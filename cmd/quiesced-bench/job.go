package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// life is of one process of a job: when it was up, told to end, and at its end. Those
// that were not yet are 0.
type life struct{ up, told, ended time.Duration }

// playJob is a job's process. It notes what becomes of it in DIR/NAME, in memory, and
// ends so long after it was told to.
func playJob(args []string, _ io.Reader, _ io.Writer) error {
	takes, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(args[0], args[1]), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	told := make(chan os.Signal, 1)
	signal.Notify(told, unix.SIGTERM)
	_, _ = fmt.Fprintln(f, "up", int64(now()))
	<-told
	_, _ = fmt.Fprintln(f, "told", int64(now()))
	time.Sleep(takes)
	_, _ = fmt.Fprintln(f, "ended", int64(now()))
	return f.Close()
}

// lives reads what a job's processes have noted.
func lives(path string) ([]life, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all []life
	for line := range strings.Lines(string(text)) {
		var what string
		var at int64
		if _, err := fmt.Sscan(line, &what, &at); err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", path, err)
		}
		if what == "up" {
			all = append(all, life{})
		}
		if len(all) == 0 {
			return nil, fmt.Errorf("%s begins with %q", path, what)
		}
		last := &all[len(all)-1]
		*map[string]*time.Duration{"up": &last.up, "told": &last.told, "ended": &last.ended}[what] = time.Duration(at)
	}
	return all, nil
}
