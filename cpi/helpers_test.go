package cpi_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/cpi"
)

const director = "80f6a3c2-5d2f-4c1e-9d4e-2f6b8c0a1e77"

const good = `{"result":"snap-1","error":null,"log":""}`

// patience bounds every wait of a test, so that a failure is no hang.
const patience = 20 * time.Second

func withPatience(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// newClient runs a shell script as CPI. In it, $D is a directory of its own,
// which is returned too.
func newClient(t *testing.T, script string) (*cpi.Client, string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "cpi")
	text := "#!/bin/sh\nD='" + dir + "'\n" + script + "\n"
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return &cpi.Client{
		Path:    path,
		Context: map[string]any{"director_uuid": director, "request_id": "cpi-348175"},
	}, dir
}

func prepare(t *testing.T, c *cpi.Client) (*cpi.Call, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "call")
	call, err := c.PrepareSnapshot(dir, "disk-cid-1", metadata())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { call.Kill(0) })
	return call, dir
}

func metadata() cpi.SnapshotMetadata {
	return cpi.SnapshotMetadata{
		Deployment: "dep", Job: "db",
		DirectorName: "mini-director", DirectorUUID: director,
		AgentID:    "11111111-aaaa-4bbb-8ccc-000000000001",
		InstanceID: "inst-uuid-1",
		Tags:       map[string]string{"owner": "me"},
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// await waits for a file that a CPI makes to say how far it is.
func await(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
	}
	t.Fatalf("%s did not come to be", path)
}

func wantError[E error](t *testing.T, err error) E {
	t.Helper()
	var e E
	if !errors.As(err, &e) {
		t.Fatalf("got error %v (%T), want a %T", err, err, e)
	}
	return e
}

func wantText(t *testing.T, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("got error %v, want one with %q", err, part)
	}
}
