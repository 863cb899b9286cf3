package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/quiesced/quiesced/cpi"
)

func TestTheBinaryIsACPI(t *testing.T) {
	path := filepath.Join(t.TempDir(), "local-cpi")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("cannot build: %v\n%s", err, out)
	}
	root := t.TempDir()
	c := &cpi.Client{Path: path, Context: map[string]any{"root": root}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if info, err := c.Info(ctx); err != nil || info.APIVersion != 2 {
		t.Fatalf("got %v, %v", info, err)
	}
	if err := os.MkdirAll(filepath.Join(root, "disks"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "disks", "disk-1.img"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	cid, err := c.SnapshotDisk(ctx, "disk-1", cpi.SnapshotMetadata{Deployment: "dep"})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(root, "snapshots", cid+".img")); string(text) != "data" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
	if err := c.DeleteSnapshot(ctx, cid); err != nil {
		t.Error(err)
	}
}
