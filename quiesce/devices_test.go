package quiesce_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quiesced/quiesced/quiesce"
)

func TestDevicesAreToldApartByTheKernelsNumber(t *testing.T) {
	sys := t.TempDir()
	for file, text := range map[string]string{
		"sda/size": "204800\n", "sda/diskseq": "7\n",
		"sda1/size":  "200000\n",
		"loop0/size": "0\n", "loop0/diskseq": "3\n",
		"sr0/diskseq": "1\n",
	} {
		path := filepath.Join(sys, "class/block", file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := quiesce.System{Sys: sys}.Devices()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"sda": "7", "sda1": "size 200000"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if _, err := (quiesce.System{Sys: filepath.Join(sys, "missing")}).Devices(); err == nil {
		t.Error("a list that cannot be read is empty")
	}
}
