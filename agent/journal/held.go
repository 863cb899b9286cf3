package journal

import (
	"fmt"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
)

// HeldFile keeps what is held of the jobs in a file of its own, beside the socket
// and so in memory: it outlives the daemon and the loss of the journal.
type HeldFile struct{ Path string }

func (f HeldFile) file() file { return file{f.Path, "what is held of the jobs"} }

// Put replaces the file whole.
func (f HeldFile) Put(h agent.Held) error { return f.file().put(wire.MarshalHeld(h)) }

// Get reads the file; without one nothing is held.
func (f HeldFile) Get() (agent.Held, bool, error) {
	doc, ok, err := f.file().get()
	if !ok || err != nil {
		return agent.Held{}, false, err
	}
	h, err := wire.UnmarshalHeld(doc)
	if err != nil {
		return agent.Held{}, false, fmt.Errorf("%s: %w", f.Path, err)
	}
	return h, true, nil
}

// Remove forgets it.
func (f HeldFile) Remove() error { return f.file().remove() }
