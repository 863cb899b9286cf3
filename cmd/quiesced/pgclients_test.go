package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	clients = 3

	// between two transactions a client waits a little: others want the processors.
	between = 5 * time.Millisecond

	// reconnect is how long a client waits before it tries again.
	reconnect = 50 * time.Millisecond
)

// crowd is who uses the database all the while: clients that number their rows, and
// pgbench.
type crowd struct {
	db      *database
	clients []*client
	cancel  context.CancelFunc
	all     sync.WaitGroup

	mu    sync.Mutex // guards what follows
	lines []string   // of errors, of all
}

// client commits rows that it numbers, one after the other. It remembers which
// commits were acknowledged, and when it knew.
type client struct {
	crowd *crowd
	id    int

	mu    sync.Mutex // guards what follows
	last  int        // the number of the last row
	acked []commit
	lost  []int // rows of which nobody answered whether they were committed
}

type commit struct {
	number int
	at     time.Time
}

// startCrowd ends with the test.
func startCrowd(db *database) *crowd {
	db.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &crowd{db: db, cancel: cancel}
	db.t.Cleanup(func() { cancel(); c.all.Wait() })
	for id := range clients {
		db.sql(db.sockets(), fmt.Sprintf("INSERT INTO account VALUES (%d, 0, 0)", id))
		one := &client{crowd: c, id: id}
		c.clients = append(c.clients, one)
		c.all.Go(func() { c.forEver(ctx, one.session) })
	}
	c.all.Go(func() { c.forEver(ctx, c.bench) })
	return c
}

// forEver has sessions one after the other, and keeps what they say of errors.
func (c *crowd) forEver(ctx context.Context, session func(context.Context) string) {
	for ctx.Err() == nil {
		said := strings.TrimSpace(session(ctx))
		if ctx.Err() == nil {
			c.mu.Lock()
			c.lines = append(c.lines, strings.Split(said, "\n")...)
			c.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconnect):
		}
	}
}

// takeErrors returns what was said since it was asked last.
func (c *crowd) takeErrors() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := c.lines
	c.lines = nil
	return lines
}

// bench runs pgbench until it gives up: when it has lost its connections.
func (c *crowd) bench(ctx context.Context) string {
	cmd := exec.CommandContext(ctx, filepath.Join(pgBin, "pgbench"), "-h", c.db.sockets(), "-U", "postgres",
		"-n", "-c", "2", "-R", "100", "-T", "100000", "postgres")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	err := cmd.Run()
	if errs.Len() == 0 {
		return fmt.Sprintf("pgbench ended: %v", err)
	}
	return errs.String()
}

// session commits rows until the connection is lost.
func (c *client) session(ctx context.Context) string {
	template := psql(c.crowd.db.sockets(), "-v", "ON_ERROR_STOP=1")
	cmd := exec.CommandContext(ctx, template.Path, template.Args[1:]...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	in, err := cmd.StdinPipe()
	if err != nil {
		return err.Error()
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err.Error()
	}
	if err := cmd.Start(); err != nil {
		return err.Error()
	}
	for answers := bufio.NewScanner(out); c.commit(in, answers); time.Sleep(between) {
	}
	_ = in.Close()
	if err := cmd.Wait(); errs.Len() == 0 {
		return fmt.Sprintf("psql ended: %v", err)
	}
	return errs.String()
}

// commit commits the next row, and says whether that was acknowledged.
func (c *client) commit(in io.Writer, answers *bufio.Scanner) bool {
	c.mu.Lock()
	c.last++
	number := c.last
	c.mu.Unlock()
	_, _ = fmt.Fprintf(in, "BEGIN; INSERT INTO ledger VALUES (%d, %d);"+
		"UPDATE account SET entries = entries + 1, latest = %[2]d WHERE client = %[1]d; COMMIT;\n", c.id, number)
	acked := false
	for !acked && answers.Scan() {
		acked = answers.Text() == "COMMIT"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if acked {
		c.acked = append(c.acked, commit{number, time.Now()})
	} else {
		c.lost = append(c.lost, number)
	}
	return acked
}

// ackedBefore are the numbers of the rows whose commit was known before a time.
func (c *client) ackedBefore(at time.Time) []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	var numbers []int
	for _, a := range c.acked {
		if a.at.Before(at) {
			numbers = append(numbers, a.number)
		}
	}
	return numbers
}

func (c *client) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.acked)
}

// wasLost says whether nobody knows about a row.
func (c *client) wasLost(number int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.lost, number)
}

// waitedAround is how long the client had no acknowledgement at a moment.
func (c *client) waitedAround(at time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := 1; i < len(c.acked); i++ {
		if c.acked[i].at.After(at) {
			return c.acked[i].at.Sub(c.acked[i-1].at)
		}
	}
	return 0
}

// goOn waits until all have committed again, pgbench too.
func (c *crowd) goOn() {
	c.db.t.Helper()
	for _, one := range c.clients {
		enough := one.count() + 20
		c.db.await(fmt.Sprintf("client %d commits", one.id), func() bool { return one.count() >= enough })
	}
	history := func() string {
		n, err := trySQL(c.db.sockets(), "SELECT count(*) FROM pgbench_history")
		if err != nil {
			return ""
		}
		return n
	}
	before := history()
	c.db.await("pgbench commits", func() bool { now := history(); return before != "" && now != "" && now != before })
}

// waitedAround is how long any client had no acknowledgement at a moment.
func (c *crowd) waitedAround(at time.Time) time.Duration {
	var longest time.Duration
	for _, one := range c.clients {
		longest = max(longest, one.waitedAround(at))
	}
	return longest
}
