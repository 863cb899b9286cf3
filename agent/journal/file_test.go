package journal_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// store is a file that keeps one value.
type store[T any] interface {
	Put(T) error
	Get() (T, bool, error)
	Remove() error
}

// testKept has a store keep one value after the other until it forgets.
func testKept[T any](t *testing.T, s store[T], values ...T) {
	t.Helper()
	if _, ok, err := s.Get(); ok || err != nil {
		t.Fatalf("before there is any: %t, %v", ok, err)
	}
	for _, want := range values {
		if err := s.Put(want); err != nil {
			t.Fatal(err)
		}
		got, ok, err := s.Get()
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	for range 2 {
		if err := s.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok, err := s.Get(); ok || err != nil {
		t.Errorf("after it was removed: %t, %v", ok, err)
	}
}

// testUnusable has a store read half a document, and write where there is no directory.
func testUnusable[T any](t *testing.T, at func(path string) store[T]) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "half.json")
	if err := os.WriteFile(path, []byte(`{"disk_cid":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := at(path).Get(); err == nil {
		t.Error("half a document is read")
	}
	var value T
	if err := at(filepath.Join(t.TempDir(), "missing", "file.json")).Put(value); err == nil {
		t.Error("it is written where there is no directory")
	}
}
