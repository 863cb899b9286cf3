package boshvm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// DefaultRoot is where a stemcell has its files.
const DefaultRoot = "/var/vcap"

// VM is a VM made from a stemcell.
type VM struct {
	Root   string // DefaultRoot but for tests
	Mounts string // the mount table, "" for /proc/self/mountinfo
}

// Exists says whether the machine was made from a stemcell.
func (v VM) Exists() bool {
	info, err := os.Stat(v.path("bosh"))
	return err == nil && info.IsDir()
}

// Runs says whether a job is one of the VM's.
func (v VM) Runs(job string) bool { return exists(v.path("jobs", job)) }

func (v VM) path(elements ...string) string {
	return filepath.Join(append([]string{v.Root}, elements...)...)
}

// find is where bosh-agent keeps a file: newer ones have settings on a tmpfs of their
// own. It is the latter for one that is not there.
func (v VM) find(name string) string {
	if path := v.path("bosh", "settings", name); exists(path) {
		return path
	}
	return v.path("bosh", name)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

const (
	// rereads is how often a file that was caught while bosh-agent writes it is read.
	rereads     = 20
	rereadPause = 25 * time.Millisecond
)

// read reads a file with a parser until it holds something whole.
func read(path string, parse func([]byte) error) error {
	var err error
	for range rereads {
		var text []byte
		if text, err = os.ReadFile(path); err != nil {
			return fmt.Errorf("cannot read the stemcell's files: %w", err)
		}
		if err = parse(text); err == nil {
			return nil
		}
		time.Sleep(rereadPause)
	}
	return fmt.Errorf("cannot read %q: %w", path, err)
}

// readJSON reads a file that may be missing where optional.
func readJSON[T any](path string, optional bool) (T, error) {
	var v T
	err := read(path, func(text []byte) (err error) {
		v, err = parseJSON[T](text)
		return err
	})
	if optional && errors.Is(err, fs.ErrNotExist) {
		return *new(T), nil
	}
	return v, err
}

// parseJSON reads one document. The error says where it is wrong, and quotes nothing.
func parseJSON[T any](text []byte) (T, error) {
	var v T
	err := json.Unmarshal(text, &v)
	var (
		syntax *json.SyntaxError
		kind   *json.UnmarshalTypeError
	)
	switch {
	case errors.As(err, &syntax):
		return v, fmt.Errorf("it is no JSON at byte %d of %d", syntax.Offset, len(text))
	case errors.As(err, &kind):
		got, _, _ := strings.Cut(kind.Value, " ") // "number 17" quotes the number
		return v, fmt.Errorf("%s: it is a JSON %s", keyOf(kind.Field), got)
	case err != nil:
		return v, errors.New("it has no form that is known")
	}
	return v, nil
}

func keyOf(field string) string {
	if field == "" {
		return "the whole"
	}
	return field
}
