package front

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"sync"
	"syscall"
	"time"

	"github.com/quiesced/quiesced/cpi"
)

const (
	// maxLine bounds what is kept of an unfinished line of stderr, in bytes.
	maxLine = 64 << 10

	// leftTime is how long what a CPI left behind may hold its pipes once the CPI has
	// ended and answered, and how long a CPI may take to notice that it is not needed.
	leftTime = time.Second

	// armTime bounds the wait for a CPI to load. Ruby takes seconds.
	armTime = 10 * time.Second
)

// child is a run of the real CPI. It is in our process group, so that a signal to
// the group reaches it as if we were not there.
type child struct {
	process *os.Process
	input   *cpi.Input
	pattern *regexp.Regexp // of the line that fixes the point in time, nil for none
	line    []byte         // of stderr, without its end

	fixed  chan struct{} // closed when a line of stderr says that the point in time is fixed
	fixing sync.Once
	left   chan struct{} // closed when the CPI has ended and what it left behind may still answer

	known  context.Context // done when there is a whole answer, or none to come any more
	know   func()
	ended  chan struct{} // closed when the CPI has ended and all that it printed is there
	status syscall.WaitStatus

	mu     sync.Mutex // guards answer
	answer []byte     // what came on stdout
}

// start runs the CPI, with the first part of its request, of which it can make nothing
// yet. What it prints to stderr goes to the relay.
func start(path string, first []byte, pattern *regexp.Regexp, stderr io.Writer) (*child, error) {
	input, stdin, err := cpi.NewInput(first)
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	outRead, outWrite, err := os.Pipe()
	if err != nil {
		input.Abort()
		return nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	defer outWrite.Close()
	errRead, errWrite, err := os.Pipe()
	if err != nil {
		input.Abort()
		return nil, errors.Join(fmt.Errorf("cannot make a pipe: %w", err), outRead.Close())
	}
	defer errWrite.Close()
	process, err := os.StartProcess(path, []string{path}, &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{stdin, outWrite, errWrite},
	})
	if err != nil {
		input.Abort()
		return nil, errors.Join(fmt.Errorf("cannot run the CPI %q: %w", path, err), outRead.Close(), errRead.Close())
	}
	c := &child{process: process, input: input, pattern: pattern, fixed: make(chan struct{}), left: make(chan struct{}), ended: make(chan struct{})}
	c.known, c.know = context.WithCancel(context.Background())
	go c.watch(outRead, errRead, stderr)
	return c, nil
}

// arm waits until the CPI has loaded what it needs and reads, but not for long.
func (c *child) arm(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, armTime)
	defer cancel()
	stop := context.AfterFunc(c.known, cancel)
	defer stop()
	c.input.Arm(ctx)
}

// abort ends a CPI that does not get the rest of its request.
func (c *child) abort() {
	c.input.Abort()
	select {
	case <-c.ended:
	case <-time.After(leftTime):
		_ = c.process.Kill()
		c.know() // what it left behind is not waited for
		<-c.ended
	}
}

// watch reads both pipes until a director would be satisfied: to their ends, but
// for what the CPI left behind.
func (c *child) watch(stdout, stderr *os.File, relay io.Writer) {
	defer close(c.ended)
	out, errs := make(chan struct{}), make(chan struct{})
	go func() { defer close(out); c.readAnswer(stdout) }()
	go func() { defer close(errs); c.readLog(stderr, relay) }()
	state, err := c.process.Wait()
	if err == nil {
		c.status = state.Sys().(syscall.WaitStatus)
	}
	until := time.Now().Add(leftTime)
	select {
	case <-out:
	case <-c.known.Done():
	case <-time.After(leftTime):
		close(c.left)
	}
	select {
	case <-out:
	case <-c.known.Done():
		closeAt(stdout, out, until)
		<-out
	}
	c.know()
	closeAt(stderr, errs, until)
	<-errs
	_, _ = stdout.Close(), stderr.Close()
}

// closeAt ends a reading that has not ended by itself in time. What is in a pipe
// already is read first.
func closeAt(f *os.File, done <-chan struct{}, until time.Time) {
	select {
	case <-done:
	case <-time.After(max(time.Until(until), leftTime/10)):
		_ = f.Close()
	}
}

func (c *child) fix() { c.fixing.Do(func() { close(c.fixed) }) }

// readAnswer keeps what comes on stdout.
func (c *child) readAnswer(from io.Reader) {
	chunk := make([]byte, 64<<10)
	for {
		n, err := from.Read(chunk)
		c.mu.Lock()
		c.answer = append(c.answer, chunk[:n]...)
		c.mu.Unlock()
		if err != nil {
			return
		}
		if c.answered() {
			c.know()
		}
	}
}

// answered says whether stdout holds a whole answer, be it an error.
func (c *child) answered() bool {
	text := bytes.TrimSpace(c.stdout())
	if !bytes.HasSuffix(text, []byte("}")) {
		return false
	}
	_, err := cpi.ParseResponse(text)
	return err == nil || errors.As(err, new(*cpi.Error))
}

func (c *child) stdout() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answer
}

// readLog hands on what comes on stderr, and looks for the line that fixes the point
// in time.
func (c *child) readLog(from io.Reader, relay io.Writer) {
	chunk := make([]byte, 64<<10)
	for {
		n, err := from.Read(chunk)
		_, _ = relay.Write(chunk[:n])
		c.match(chunk[:n])
		if err != nil {
			return
		}
	}
}

func (c *child) match(text []byte) {
	if c.pattern == nil {
		return
	}
	c.line = append(c.line, text...)
	for {
		line, rest, whole := bytes.Cut(c.line, []byte("\n"))
		if !whole {
			break
		}
		c.line = rest
		if c.pattern.Match(line) {
			c.fix()
		}
	}
	c.line = c.line[max(0, len(c.line)-maxLine):]
}
