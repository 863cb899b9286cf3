package cpi

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// atOnce is what every pipe takes without a reader, in bytes: one page, to
// which the kernel shrinks pipes of a user who has too many.
const atOnce = 4096

// input is our end of a CPI's standard input. It is fed the request up to the
// last byte, which send adds.
type input struct {
	pipe *os.File
	head []byte
	last []byte

	mu      sync.Mutex // guards all below; never held for longer than a write that cannot wait
	fed     bool       // head was written, or could not be (err)
	sent    bool
	aborted bool
	err     error
}

// newInput returns our end and the child's. The child's is in blocking mode,
// which programs expect of a standard input; ours is not, so that closing it
// ends a write that waits.
func newInput(head, last []byte) (*input, *os.File, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	child := os.NewFile(uintptr(fds[0]), "stdin of a CPI")
	if err := unix.SetNonblock(fds[1], true); err != nil {
		child.Close()
		unix.Close(fds[1])
		return nil, nil, fmt.Errorf("cannot make a pipe: %w", err)
	}
	ours := os.NewFile(uintptr(fds[1]), "request to a CPI")
	return &input{pipe: ours, head: head, last: last}, child, nil
}

// feed writes the head, from a goroutine where the pipe may be too small for
// it: that one ends with the write, or when the pipe is closed.
func (in *input) feed() {
	if len(in.head) < atOnce {
		in.write()
		return
	}
	go in.write()
}

func (in *input) write() {
	_, err := in.pipe.Write(in.head)
	in.mu.Lock()
	in.fed, in.err = true, err
	sent := in.sent
	in.mu.Unlock()
	if sent {
		_ = in.finish()
	}
}

// send writes the last byte and closes the pipe. It never waits for the CPI:
// where one of a large request has not read it yet, the byte follows from
// another goroutine.
func (in *input) send() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.aborted {
		return ErrAborted
	}
	if in.sent {
		return nil
	}
	in.sent = true
	switch {
	case !in.fed: // write goes on to the last byte
	case len(in.head) < atOnce || in.unread() == 0:
		in.err = errors.Join(in.err, in.finish())
	default:
		go func() { _ = in.finish() }() // its failure shows in the answer
	}
	return in.err
}

// finish is called once, by whoever finds both fed and sent true first.
func (in *input) finish() error {
	_, err := in.pipe.Write(in.last)
	return errors.Join(err, in.pipe.Close())
}

// abort closes the pipe before the last byte, and reports whether it did: after
// send it is too late.
func (in *input) abort() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.sent {
		return false
	}
	in.aborted = true
	in.pipe.Close()
	return true
}

// close is for a process that has ended.
func (in *input) close() { in.pipe.Close() }

// drained reports whether the child has read all that it can get before send.
func (in *input) drained() (bool, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.aborted:
		return false, ErrAborted
	case in.sent:
		return true, nil
	case !in.fed || in.err != nil:
		return false, in.err
	}
	return in.unread() == 0, nil
}

func (in *input) isSent() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.sent
}

// unread is the number of bytes in the pipe. TIOCINQ, which is FIONREAD, answers
// it at either end.
func (in *input) unread() int {
	unread := 0
	raw, err := in.pipe.SyscallConn()
	if err != nil {
		return unread
	}
	_ = raw.Control(func(fd uintptr) {
		if n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ); err == nil {
			unread = n
		}
	})
	return unread
}
