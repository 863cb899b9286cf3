package main

import (
	"fmt"
	"io"

	"github.com/nats-io/nats.go"
)

// playEcho is the least that a subscriber can be: it answers every request with the
// same bytes, and drops what comes on another subject.
func playEcho(args []string, in io.Reader, out io.Writer) error {
	conn, err := nats.Connect(args[0], nats.MaxReconnects(-1), nats.ReconnectBufSize(-1))
	if err != nil {
		return err
	}
	defer conn.Close()
	answer := []byte(args[1])
	if _, err := conn.Subscribe(echoSubject, func(m *nats.Msg) { _ = conn.Publish(m.Reply, answer) }); err != nil {
		return err
	}
	if _, err := conn.Subscribe(droppedSubject, func(*nats.Msg) {}); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in) // until who asks has ended
	return err
}
