package jobs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/quiesced/quiesced/quiesce/failpoint"
)

// Marker is the file by which two masters of one supervisor tell who stopped its
// services: stopped in monit's directory. bosh-agent makes it, empty, when it stops
// them, removes it when it has started them, and looks for nothing but that it is
// there: while it is, stopped services are no failure. We write into it who we are.
type Marker struct{ Path string }

// Owner is who stopped the services.
type Owner string

// The owners of a marker.
const (
	Nobody   Owner = ""         // there is no marker: the services are to run
	Director Owner = "director" // or whoever else made it
	Ours     Owner = "quiesced"
)

// Mark is what a marker says.
type Mark struct {
	Owner    Owner
	Run      string   // of ours
	Services []string // of ours: those that ran before
}

// ErrMarked is returned by Claim when somebody has stopped the services already.
var ErrMarked = errors.New("the services are marked as stopped already")

// signature begins a marker of ours; the run's id follows, and the services, one to
// a line.
const signature = "quiesced run "

// Read says who stopped the services. It changes nothing, so others may release the
// marker meanwhile: another's that was taken aside counts as if it were back.
func (m Marker) Read() (Mark, error) {
	aside, err := readMark(m.aside())
	if err != nil {
		return Mark{}, err
	}
	mark, err := readMark(m.Path)
	if err == nil && mark.Owner == Nobody && aside.Owner == Director {
		return aside, nil
	}
	return mark, err
}

func readMark(path string) (Mark, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Mark{}, nil
	}
	if err != nil {
		return Mark{}, fmt.Errorf("cannot tell who stopped the services: %w", err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	run, ours := strings.CutPrefix(lines[0], signature)
	if !ours {
		return Mark{Owner: Director}, nil
	}
	return Mark{Owner: Ours, Run: run, Services: lines[1:]}, nil
}

// Claim makes the marker ours, whole and durable, or returns ErrMarked.
func (m Marker) Claim(run string, services []string) error {
	if err := m.settle(); err != nil {
		return err
	}
	text := strings.Join(append([]string{signature + run}, services...), "\n") + "\n"
	draft := m.Path + ".new"
	err := writeDurably(draft, text)
	failpoint.Hit("marking")
	if err == nil {
		err = os.Link(draft, m.Path)
	}
	err = errors.Join(err, remove(draft))
	if errors.Is(err, fs.ErrExist) {
		return ErrMarked
	}
	if err != nil {
		return fmt.Errorf("cannot mark the services as stopped by run %q: %w", run, err)
	}
	return syncDir(filepath.Dir(m.Path))
}

// Release removes a marker of ours, and says whose was there: another's is kept.
// It is taken aside first, so that one which bosh-agent makes meanwhile is not
// removed for ours.
func (m Marker) Release() (Mark, error) {
	if err := m.settle(); err != nil {
		return Mark{}, err
	}
	err := os.Rename(m.Path, m.aside())
	if errors.Is(err, fs.ErrNotExist) {
		return Mark{}, nil
	}
	if err != nil {
		return Mark{}, fmt.Errorf("cannot remove the mark of stopped services: %w", err)
	}
	failpoint.Hit("unmarking")
	found, err := readMark(m.aside())
	return found, errors.Join(err, m.settle())
}

func (m Marker) aside() string { return m.Path + ".quiesced" }

// settle ends a Release, also one that was cut off: what was taken aside goes back
// if it was not ours.
func (m Marker) settle() error {
	found, err := readMark(m.aside())
	if err != nil || found.Owner == Nobody {
		return err
	}
	if found.Owner != Ours {
		if err := os.Link(m.aside(), m.Path); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("cannot put back the mark of stopped services: %w", err)
		}
	}
	return errors.Join(remove(m.aside()), syncDir(filepath.Dir(m.Path)))
}

func writeDurably(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
