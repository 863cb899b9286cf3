package cpi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// defaultVersion is the version of the CPI's interface that is spoken
	// after info, and the least that info may report.
	defaultVersion = 2

	// defaultGrace is how long Do waits between SIGTERM and SIGKILL.
	defaultGrace = 5 * time.Second

	// reapTime bounds the wait for a process after SIGKILL. One in state D
	// cannot be waited for.
	reapTime = time.Second

	keyDirector = "director_uuid"
	keyRequest  = "request_id"

	// noDirector is sent where no director is known: CPIs written in Ruby
	// refuse a request whose context has no director_uuid.
	noDirector = "quiesced"
)

// Client runs a CPI executable as a BOSH director does. It holds no state: one
// Client serves any number of calls at a time.
type Client struct {
	// Path of the executable, absolute.
	Path string

	// Context goes with every request. It may hold secrets. A request_id is
	// added to it, new in every call, and a director_uuid, where it has none.
	Context map[string]any

	// APIVersion is sent with every method but info; zero means 2.
	APIVersion int

	// TempDir is where Do makes the directories that it removes again; empty
	// means os.TempDir.
	TempDir string

	// Keep has Do leave in TempDir what its calls printed.
	Keep bool

	// KillGrace is what Do leaves a CPI between SIGTERM and SIGKILL; zero
	// means 5 s.
	KillGrace time.Duration

	// Starting, if there is one, is told of every call of Do, where its files lie and
	// which process it is, before the CPI can act. Its error ends the call, and nothing
	// was done.
	Starting func(dir string, p Process) error
}

// Check returns ErrUnusable, with the path, unless it is that of an executable
// regular file. It starts nothing.
func (c *Client) Check() error {
	if !filepath.IsAbs(c.Path) {
		return unusable(c.Path, errors.New("not an absolute path"))
	}
	info, err := os.Stat(c.Path)
	if err != nil {
		return unusable(c.Path, err)
	}
	if !info.Mode().IsRegular() {
		return unusable(c.Path, errors.New("not a regular file"))
	}
	if unix.Access(c.Path, unix.X_OK) != nil {
		return unusable(c.Path, fs.ErrPermission)
	}
	return nil
}

// Do makes a whole call and returns its result. Its files lie in dir, or in a
// temporary directory removed afterwards if dir is empty. When ctx ends first
// the CPI is killed, and the error is *DeadlineError unless it had answered by
// then.
func (c *Client) Do(ctx context.Context, dir, method string, args ...any) (json.RawMessage, error) {
	if dir == "" {
		temporary, err := os.MkdirTemp(c.TempDir, "cpi-call-")
		if err != nil {
			return nil, fmt.Errorf("cannot call %s of %q: %w", method, c.Path, err)
		}
		if !c.Keep {
			defer os.RemoveAll(temporary)
		}
		dir = temporary
	}
	call, err := c.Prepare(dir, method, args...)
	if err != nil {
		return nil, err
	}
	if c.Starting != nil {
		if err := c.Starting(dir, call.Process()); err != nil {
			call.Abort()
			return nil, call.failed(err)
		}
	}
	// A CPI that ended without reading its request may have answered, so an
	// error of Send decides nothing.
	_ = call.Send()
	answer, err := call.waitOrKill(ctx, c.grace())
	return answer.Result, err
}

func (c *Client) request(method string, args []any) Request {
	r := Request{Method: method, Arguments: args, Context: c.context(), APIVersion: c.APIVersion}
	if r.APIVersion == 0 {
		r.APIVersion = defaultVersion
	}
	if method == methodInfo {
		r.APIVersion = 0
	}
	return r
}

func (c *Client) context() map[string]any {
	values := map[string]any{
		keyDirector: noDirector,
		keyRequest:  fmt.Sprintf("cpi-%06d", rand.IntN(1000000)),
	}
	maps.Copy(values, c.Context)
	return values
}

func (c *Client) grace() time.Duration {
	if c.KillGrace == 0 {
		return defaultGrace
	}
	return c.KillGrace
}

// environment is all that a director gives its CPIs.
func environment() []string {
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, name := range []string{"HOME", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}
