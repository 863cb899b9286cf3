package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// file is a small document that is replaced whole. Its errors say what it tells.
type file struct{ path, what string }

// put replaces the document, and durably. An err is that of making it.
func (f file) put(doc []byte, err error) error {
	if err == nil {
		err = f.replace(doc)
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", f.what, err)
	}
	return nil
}

func (f file) replace(doc []byte) error {
	next, err := os.OpenFile(f.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = next.Write(doc)
	if err = errors.Join(err, next.Sync(), next.Close()); err != nil {
		return err
	}
	if err := os.Rename(next.Name(), f.path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// get reads the document, and says whether there is one.
func (f file) get() ([]byte, bool, error) {
	doc, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("cannot read %s: %w", f.what, err)
	}
	return doc, true, nil
}

// remove forgets the document.
func (f file) remove() error {
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot forget %s: %w", f.what, err)
	}
	return nil
}
