package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/wire"
)

// HeldFile keeps what is held of the jobs in a file of its own, beside the socket
// and so in memory: it outlives the daemon and the loss of the journal.
type HeldFile struct{ Path string }

// Put replaces the file whole.
func (f HeldFile) Put(h agent.Held) error {
	doc, err := wire.MarshalHeld(h)
	if err == nil {
		err = os.WriteFile(f.Path+".new", doc, 0o600)
	}
	if err == nil {
		err = os.Rename(f.Path+".new", f.Path)
	}
	if err != nil {
		return fmt.Errorf("cannot write what is held of the jobs: %w", err)
	}
	return nil
}

// Get reads the file; without one nothing is held.
func (f HeldFile) Get() (agent.Held, bool, error) {
	doc, err := os.ReadFile(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return agent.Held{}, false, nil
	}
	if err != nil {
		return agent.Held{}, false, fmt.Errorf("cannot read what is held of the jobs: %w", err)
	}
	h, err := wire.UnmarshalHeld(doc)
	if err != nil {
		return agent.Held{}, false, fmt.Errorf("%s: %w", f.Path, err)
	}
	return h, true, nil
}

// Remove forgets it.
func (f HeldFile) Remove() error {
	if err := os.Remove(f.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot forget what was held of the jobs: %w", err)
	}
	return nil
}
