package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/quiesced/quiesced/quiesce/guard"
)

// kill measures how long after SIGKILL of the daemon its freeze is thawed, as a
// writer feels it.
func (s *stage) kill(ctx context.Context, o options) error {
	return s.scope(func() error {
		image, err := s.image("kill", 64)
		if err != nil {
			return err
		}
		mount, err := s.filesystem(image, "ext4")
		if err != nil {
			return err
		}
		s.say("\nFrom SIGKILL of the daemon to the thaw, %d kills: ms\n", o.kills)
		for _, spinning := range []int{0, 4} {
			if err := s.kills(ctx, mount, o.kills, spinning); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *stage) kills(ctx context.Context, mount string, n, spinning int) error {
	return s.scope(func() error {
		for range spinning {
			c, err := begin("spin")
			if err != nil {
				return err
			}
			s.later(c.end)
		}
		var all series
		for range n {
			took, err := s.killOnce(ctx, mount)
			if err = errors.Join(err, ctx.Err()); err != nil {
				return err
			}
			all = append(all, took)
		}
		s.say("%d processes spinning: median %.2f, p99 %.2f, most %.2f\n",
			spinning, milliseconds(all.median()), milliseconds(all.at(0.99)), milliseconds(all.at(1)))
		return nil
	})
}

// killOnce kills a daemon in its window. The writer waits by then; when it goes
// on, the filesystem is thawed.
func (s *stage) killOnce(ctx context.Context, mount string) (took time.Duration, err error) {
	err = armed(mount, func() error {
		daemon, err := begin("daemon", s.memory, mount)
		if err != nil {
			return err
		}
		created := make(chan time.Duration, 1)
		go func() {
			f, err := os.Create(filepath.Join(mount, "created"))
			created <- now()
			if err == nil {
				_ = f.Close()
			}
		}()
		time.Sleep(20 * time.Millisecond)
		if len(created) > 0 {
			return errors.New("it is not frozen")
		}
		began := now()
		if err := daemon.cmd.Process.Kill(); err != nil {
			return err
		}
		took = <-created - began
		_ = daemon.end()
		_, err = guard.Recover(ctx, s.guard, s.memory, guard.RecoverOptions{})
		return err
	})
	return took, err
}

// playDaemon freezes a mount and beats until it is killed.
func playDaemon(args []string, _ io.Reader, out io.Writer) error {
	ctx := context.Background()
	binary, err := guard.OpenBinary(sibling("quiesced-guard"))
	if err != nil {
		return err
	}
	f, err := guard.Identify(args[1])
	if err != nil {
		return err
	}
	g, err := guard.Start(ctx, binary, []guard.Filesystem{f}, guard.Options{RunID: "killed", Dir: args[0], Deadline: 20 * time.Second})
	if err != nil {
		return err
	}
	if err := g.Freeze(ctx); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(out, "frozen")
	for {
		g.Beat()
		time.Sleep(100 * time.Millisecond)
	}
}

// playSpin keeps a processor busy.
func playSpin(_ []string, in io.Reader, out io.Writer) error {
	var over atomic.Bool
	go func() { <-ended(in); over.Store(true) }()
	_, _ = fmt.Fprintln(out, "ready")
	for !over.Load() {
	}
	return nil
}
