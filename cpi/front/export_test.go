package front

import (
	"io"
	"slices"
)

// WithMetadata is a document with strings added to its metadata.
func (s *Snapshot) WithMetadata(document []byte, keysAndValues ...string) []byte {
	first, second := s.split(document)
	return slices.Concat(first, s.added(keysAndValues...), second)
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
