package front

import "io"

// WithMetadata is withMetadata.
func (s *Snapshot) WithMetadata(document []byte, keysAndValues ...string) []byte {
	return s.withMetadata(document, keysAndValues...)
}

// MaxRelay is how much a relay keeps.
const MaxRelay = maxRelay

// Relay is a relay.
type Relay = relay

// NewRelay makes one.
func NewRelay(to io.Writer, shut bool) *Relay { return newRelay(to, shut) }

// Note adds a line.
func (r *Relay) Note(text string) { r.note(text) }

// Open opens it.
func (r *Relay) Open() { r.open() }

// Close closes it.
func (r *Relay) Close() { r.close() }
