package jobstest

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/quiesced/quiesced/quiesce/jobs"
)

// told records what a supervisor tells.
type told struct {
	mu   sync.Mutex // guards said
	said map[string][]jobs.State
}

func (r *told) hear(name string, s jobs.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.said == nil {
		r.said = map[string][]jobs.State{}
	}
	r.said[name] = append(r.said[name], s)
}

func (r *told) of(name string) []jobs.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.said[name])
}

// last asserts that a service's last state that was told is as it is now, and that no
// state was told twice in a row.
func (r *told) last(t testing.TB, name string, want jobs.State) {
	t.Helper()
	said := r.of(name)
	if len(said) == 0 || said[len(said)-1] != want {
		t.Errorf("of %q was told %v, want %s at the end", name, said, want)
	}
	if len(slices.Compact(slices.Clone(said))) != len(said) {
		t.Errorf("of %q was told %v, with a state twice in a row", name, said)
	}
}

// failed asserts that err is one ServiceError about each of names, with a cause.
func failed(t testing.TB, err error, op string, cause error, names ...string) {
	t.Helper()
	var got []string
	for _, e := range all(err) {
		var of *jobs.ServiceError
		if !errors.As(e, &of) || of.Op != op || !errors.Is(of, cause) {
			t.Errorf("error %q, want that of %s: %v", e, op, cause)
			continue
		}
		got = append(got, of.Service)
	}
	slices.Sort(got)
	if !slices.Equal(got, names) {
		t.Errorf("errors are about %v, want %v: %v", got, names, err)
	}
}

// all are the errors that were joined.
func all(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
