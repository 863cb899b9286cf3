package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// op is one write of the writer's that was made durable.
type op struct{ from, to time.Duration }

// ended is closed at the end of a child's input.
func ended(in io.Reader) <-chan struct{} {
	done := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, in); close(done) }()
	return done
}

// playWriter writes 4 KiB after 4 KiB and makes each durable, until its input
// ends; then it tells when each began and ended.
func playWriter(args []string, in io.Reader, out io.Writer) error {
	const blocks = 1024
	f, err := os.Create(filepath.Join(args[0], "writer"))
	if err != nil {
		return err
	}
	block := make([]byte, 4096)
	if _, err := f.Write(bytes.Repeat(block, blocks)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(out, "ready")
	var ops []op
	done := ended(in)
	for i := 0; ; i++ {
		select {
		case <-done:
			for _, o := range ops {
				_, _ = fmt.Fprintln(out, int64(o.from), int64(o.to))
			}
			return f.Close()
		default:
		}
		from := now()
		if _, err := f.WriteAt(block, int64(i%blocks)*4096); err != nil {
			return err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return err
		}
		ops = append(ops, op{from, now()})
	}
}

// ops reads what the writer did, and ends it.
func (c *child) ops() ([]op, error) {
	_ = c.leash.Close()
	var all []op
	for c.lines.Scan() {
		var from, to int64
		if _, err := fmt.Sscan(c.lines.Text(), &from, &to); err != nil {
			return nil, err
		}
		all = append(all, op{time.Duration(from), time.Duration(to)})
	}
	return all, c.cmd.Wait()
}

// playStream writes 100 MiB/s through the page cache, over and over the same
// 512 MiB.
func playStream(args []string, in io.Reader, out io.Writer) error {
	f, err := os.Create(filepath.Join(args[0], "stream"))
	if err != nil {
		return err
	}
	chunk := bytes.Repeat([]byte{7}, 1<<20)
	done, began := ended(in), time.Now()
	_, _ = fmt.Fprintln(out, "ready")
	for i := 0; ; i++ {
		if _, err := f.WriteAt(chunk, int64(i%512)<<20); err != nil {
			return err
		}
		select {
		case <-done:
			return f.Close()
		case <-time.After(time.Until(began.Add(time.Duration(i+1) * 10 * time.Millisecond))):
		}
		began = maxTime(began, time.Now().Add(-time.Duration(i+2)*10*time.Millisecond)) // what it was held up for is not made up
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// playBurst leaves so many MiB dirty: half in a file that it keeps open, as a
// database does, and half in files that it has closed again.
func playBurst(args []string, in io.Reader, out io.Writer) error {
	size, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	const closed = 8
	chunk := bytes.Repeat([]byte{42}, 1<<20)
	fill := func(name string, n int) (*os.File, error) {
		f, err := os.Create(filepath.Join(args[0], name))
		for i := 0; i < n && err == nil; i++ {
			_, err = f.Write(chunk)
		}
		return f, err
	}
	for i := range closed {
		f, err := fill("closed-"+strconv.Itoa(i), size/2/closed)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	f, err := fill("open", size/2)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(out, "ready")
	<-ended(in)
	return f.Close()
}
