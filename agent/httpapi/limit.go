package httpapi

import (
	"net"
	"sync"
)

// limited is a listener that has no more than so many connections open at a time.
// The next one waits in the kernel's queue.
type limited struct {
	net.Listener
	slots  chan struct{} // one token per connection
	closed chan struct{}
	close  func() // closes closed
}

func atMost(conns int, l net.Listener) net.Listener {
	closed := make(chan struct{})
	return &limited{l, make(chan struct{}, conns), closed, sync.OnceFunc(func() { close(closed) })}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &counted{c, sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limited) Close() error {
	l.close()
	return l.Listener.Close()
}

// counted gives its slot back when it is closed.
type counted struct {
	net.Conn
	free func()
}

func (c *counted) Close() error {
	defer c.free()
	return c.Conn.Close()
}
