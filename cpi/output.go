package cpi

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	stdoutName = "stdout"
	stderrName = "stderr"

	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 1 << 20

	// reserved is the room kept for an answer, in bytes; most need a hundred.
	reserved = 64 << 10

	// maxStderr is as much of the end of stderr as an error is made from.
	maxStderr = 128 << 10
)

// output is the directory of a call, with the files that the CPI prints to.
// They belong to the one call, so that two answers never mix in a file.
type output struct{ dir string }

// create makes the directory, 0700, and its files, 0600, and makes their names
// durable. The error is fs.ErrExist for a directory that served a call already.
func (o output) create() (stdout, stderr *os.File, err error) {
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return nil, nil, err
	}
	if stdout, err = o.createFile(stdoutName); err != nil {
		return nil, nil, err
	}
	if err = reserve(stdout); err != nil {
		stdout.Close()
		o.remove()
		return nil, nil, err
	}
	if stderr, err = o.createFile(stderrName); err != nil {
		stdout.Close()
		return nil, nil, err
	}
	if err := errors.Join(syncFile(o.dir), syncFile(filepath.Dir(o.dir))); err != nil {
		stdout.Close()
		stderr.Close()
		return nil, nil, err
	}
	return stdout, stderr, nil
}

// reserve keeps room on the disk for an answer: a CID that finds none is lost.
func reserve(f *os.File) error {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, reserved)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), err == nil:
			return nil
		default:
			return &os.PathError{Op: "reserve room in", Path: f.Name(), Err: err}
		}
	}
}

func (o output) createFile(name string) (*os.File, error) {
	flags := os.O_WRONLY | os.O_APPEND | os.O_CREATE | os.O_EXCL
	return os.OpenFile(filepath.Join(o.dir, name), flags, 0o600)
}

// remove takes away what create made for a process that did not start.
func (o output) remove() {
	os.Remove(filepath.Join(o.dir, stdoutName))
	os.Remove(filepath.Join(o.dir, stderrName))
}

// sync makes durable what was printed.
func (o output) sync() error {
	return errors.Join(
		syncFile(filepath.Join(o.dir, stdoutName)),
		syncFile(filepath.Join(o.dir, stderrName)))
}

// answer parses what is in stdout. What errors quote of it and of stderr is
// rid of the secrets.
func (o output) answer(s secrets) (Answer, error) {
	stdout, err := o.stdout()
	if err != nil {
		return Answer{}, err
	}
	if len(stdout) > maxAnswer {
		err = &InvalidResponseError{Reason: fmt.Sprintf("it is longer than %d bytes", maxAnswer)}
		return Answer{}, o.explain(err, stdout, s)
	}
	answer, err := ParseResponse(stdout)
	return answer, o.explain(err, stdout, s)
}

func (o output) explain(err error, stdout []byte, s secrets) error {
	var e *InvalidResponseError
	if errors.As(err, &e) {
		e.Stdout, e.Stderr = s.tail(stdout), o.stderrTail(s)
	}
	var own *Error
	if errors.As(err, &own) {
		own.Original, own.Message = string(s.hide([]byte(own.Original))), string(s.hide([]byte(own.Message)))
	}
	return err
}

func (o output) stdout() ([]byte, error) {
	f, err := os.Open(filepath.Join(o.dir, stdoutName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the answer: %w: %w", ErrNoAnswer, err)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the answer: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the answer: %w", err)
	}
	return text, nil
}

func (o output) stderrTail(s secrets) string {
	f, err := os.Open(filepath.Join(o.dir, stderrName))
	if err != nil {
		return ""
	}
	defer f.Close()
	if _, err := f.Seek(-maxStderr, io.SeekEnd); err != nil {
		_, _ = f.Seek(0, io.SeekStart) // shorter than that
	}
	text, err := io.ReadAll(io.LimitReader(f, maxStderr))
	if err != nil {
		return ""
	}
	return s.tail(text)
}

// syncFile makes a file durable, or the names in a directory.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
