package front

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// readSize is how much of a request is read at a time, in bytes: what a pipe holds.
const readSize = 64 << 10

// Request is a request as it came, in a file in memory. Unlike a pipe that takes one
// of any size, and nobody has to feed it to the real CPI.
type Request struct {
	file *os.File
	head []byte // how it begins
	size int64
}

// ReadRequest reads a request to its end.
func ReadRequest(from io.Reader) (*Request, error) {
	file, err := memory()
	if err != nil {
		return nil, err
	}
	r := &Request{file: file}
	buffer := make([]byte, readSize)
	for {
		n, readErr := from.Read(buffer)
		if _, err := file.Write(buffer[:n]); err != nil {
			return nil, fmt.Errorf("cannot keep the request: %w", err)
		}
		if r.size == 0 {
			r.head = append(r.head, buffer[:n]...)
		}
		r.size += int64(n)
		switch {
		case errors.Is(readErr, io.EOF):
			return r, nil
		case readErr != nil:
			return nil, fmt.Errorf("cannot read the request: %w", readErr)
		}
	}
}

// Document is the request's text.
func (r *Request) Document() ([]byte, error) {
	document := make([]byte, r.size)
	if _, err := r.file.ReadAt(document, 0); err != nil && r.size > 0 {
		return nil, fmt.Errorf("cannot read the request again: %w", err)
	}
	return document, nil
}

// Method is the request's method, "" where it cannot be told. A director's request
// begins with it, so that the rest is not looked at.
func (r *Request) Method() string {
	method := Method(r.head)
	if method != "" || int64(len(r.head)) == r.size {
		return method
	}
	document, err := r.Document()
	if err != nil {
		return ""
	}
	return Method(document)
}

// PassOn becomes the real CPI, with the request on its standard input. It returns
// only when that cannot be done.
func PassOn(cpi string, r *Request) error {
	if _, err := r.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("cannot hand on the request: %w", err)
	}
	if err := unix.Dup2(int(r.file.Fd()), 0); err != nil {
		return fmt.Errorf("cannot hand on the request: %w", err)
	}
	return fmt.Errorf("cannot run the CPI %q: %w", cpi, syscall.Exec(cpi, []string{cpi}, os.Environ()))
}

// memory is a file that is in no directory, on no disk. A kernel may be told to have no
// such file but one that cannot be run, of which those before 6.3 do not know.
func memory() (*os.File, error) {
	fd, err := unix.MemfdCreate("request", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("request", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot keep the request in memory: %w", err)
	}
	return os.NewFile(uintptr(fd), "request"), nil
}
