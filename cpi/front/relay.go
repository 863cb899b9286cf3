package front

import (
	"fmt"
	"io"
	"sync"
)

// maxRelay bounds what is kept of a CPI's stderr while nobody reads it, in bytes.
const maxRelay = 8 << 20

// relay hands on what a CPI prints to stderr. Write never waits for the reader:
// what he has not read is kept in memory, and above maxRelay left out, with a line
// that says so.
type relay struct {
	to   io.Writer
	done chan struct{} // closed when all was handed on

	mu     sync.Mutex // guards all below
	change *sync.Cond
	kept   []byte
	last   byte // that came
	lost   int
	shut   bool // nothing is handed on yet
	ended  bool // nothing more comes
	broken bool // nobody reads any more
}

// newRelay makes a relay. One that is shut hands nothing on until open.
func newRelay(to io.Writer, shut bool) *relay {
	r := &relay{to: to, shut: shut, done: make(chan struct{}), last: '\n'}
	r.change = sync.NewCond(&r.mu)
	go r.handOn()
	return r
}

// Write implements io.Writer, and never fails.
func (r *relay) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.kept)+len(p) > maxRelay {
		r.lost += len(p)
		return len(p), nil
	}
	r.tellLossLocked()
	r.addLocked(p)
	return len(p), nil
}

func (r *relay) addLocked(p []byte) {
	if len(p) == 0 || r.broken {
		return
	}
	r.kept, r.last = append(r.kept, p...), p[len(p)-1]
	r.change.Broadcast()
}

func (r *relay) tellLossLocked() {
	if r.lost > 0 {
		r.noteLocked(fmt.Sprintf("%d bytes of the CPI's stderr are left out here, since nobody read it", r.lost))
		r.lost = 0
	}
}

// note adds a line of our own. It is not for while the CPI prints.
func (r *relay) note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tellLossLocked()
	r.noteLocked(text)
}

func (r *relay) noteLocked(text string) {
	if r.last != '\n' {
		r.addLocked([]byte("\n"))
	}
	r.addLocked([]byte(notePrefix + oneLine(text) + "\n"))
}

// open has everything handed on from now on.
func (r *relay) open() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shut = false
	r.change.Broadcast()
}

// drop forgets everything, and hands on nothing any more.
func (r *relay) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken, r.kept, r.lost = true, nil, 0
}

// close returns when everything was handed on, or nobody reads it any more.
func (r *relay) close() {
	r.mu.Lock()
	r.tellLossLocked()
	r.shut, r.ended = false, true
	r.change.Broadcast()
	r.mu.Unlock()
	<-r.done
}

func (r *relay) handOn() {
	defer close(r.done)
	for {
		chunk := r.next()
		if chunk == nil {
			return
		}
		if _, err := r.to.Write(chunk); err != nil {
			r.drop()
		}
	}
}

// next waits for something to hand on; nil is the end.
func (r *relay) next() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.kept) == 0 && !r.ended || r.shut {
		r.change.Wait()
	}
	chunk := r.kept
	r.kept = nil
	return chunk
}
