package guard

import (
	"context"
	"os"
	"syscall"
)

// For the tests of the package: what they send, write and parse by hand.

func (r *Record) Encode() ([]byte, error) { return r.encode() }

func (g *Guard) Send(command byte) { g.send(command) }

// LockState locks the state file as a thaw of g does.
func (g *Guard) LockState() error { return g.state.lock(context.Background()) }

func (g *Guard) ReadState() (*Record, error) { return g.state.read() }

func StatePath(dir, runID string) string { return statePath(dir, runID) }

func Self() (Process, error) { return self() }

func (p Process) Alive() bool { return p.alive() }

func BootID() (string, error) { return bootID() }

func ParseAnswer(line string) (kind, text string) {
	r := parseAnswer(line)
	return string(r.kind), r.text
}

// IoctlPair freezes and thaws with nothing in between.
func IoctlPair(dir *os.File) error {
	if errno := ioctl(int(dir.Fd()), fiFreeze); errno != 0 {
		return errno
	}
	if errno := ioctl(int(dir.Fd()), fiThaw); errno != 0 {
		return errno
	}
	return nil
}

func (f Filesystem) Elsewhere() (int, error) { return f.elsewhere(syscall.ESTALE) }
