package main

import (
	"bufio"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quiesced/quiesced/agent/api/apitest"
)

// proxy stands between a client and the bus, and does to their messages what networks
// do.
type proxy struct {
	t        testing.TB
	listener net.Listener
	bus      string // host:port
	running  sync.WaitGroup

	mu     sync.Mutex // guards all below
	conns  []net.Conn
	faults faults
}

// faults are what a network does.
type faults struct {
	cut   bool          // connections end, and none comes about
	stall bool          // nothing goes through, and nobody is told
	delay time.Duration // of each message
	twice bool          // each message comes twice
}

// newProxy makes a proxy of a bus that lets everything through.
func newProxy(t testing.TB, bus *apitest.Bus) *proxy {
	t.Helper()
	u, err := url.Parse(bus.URL("director"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, listener: l, bus: u.Host}
	p.running.Go(p.serve)
	t.Cleanup(func() {
		_ = l.Close()
		p.set(faults{cut: true})
		p.running.Wait()
	})
	return p
}

// url is an address of the bus, by way of the proxy.
func (p *proxy) url(direct string) string {
	return strings.Replace(direct, p.bus, p.listener.Addr().String(), 1)
}

// set has the network behave so from now on.
func (p *proxy) set(f faults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = f
	if f.cut {
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.conns = nil
	}
}

func (p *proxy) now() faults {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults
}

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.bus)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		cut := p.faults.cut
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		if cut {
			_, _ = client.Close(), server.Close()
		}
		p.running.Go(func() { p.copy(server, client) })
		p.running.Go(func() { p.copy(client, server) })
	}
}

// copy hands on what goes one way, message by message.
func (p *proxy) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	r := bufio.NewReader(from)
	for {
		message, is, err := next(r)
		if err != nil {
			return
		}
		time.Sleep(p.now().delay)
		for p.now().stall {
			time.Sleep(10 * time.Millisecond)
		}
		if is && p.now().twice {
			message = slices.Concat(message, message)
		}
		if _, err := to.Write(message); err != nil {
			return
		}
	}
}

// next reads one line of NATS' protocol with what belongs to it, and says whether it
// is a message.
func next(r *bufio.Reader) (text []byte, message bool, err error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return nil, false, err
	}
	fields := strings.Fields(string(line))
	if len(fields) == 0 || !slices.Contains([]string{"PUB", "HPUB", "MSG", "HMSG"}, fields[0]) {
		return line, false, nil
	}
	size, err := strconv.Atoi(fields[len(fields)-1])
	if err != nil {
		return nil, false, err
	}
	payload := make([]byte, size+2)
	_, err = io.ReadFull(r, payload)
	return append(line, payload...), true, err
}
