package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// binaries is the directory of the programs under test, host the mount point of
// a filesystem with reflinks that all tests share.
var binaries, host string

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "unkillable" {
		fmt.Fprintln(os.Stderr, playUnkillable(os.Args[1]))
		os.Exit(1)
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Println("these tests need root: they freeze filesystems")
		return 1
	}
	dir, err := os.MkdirTemp("", "quiesced-test-")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binaries = filepath.Join(dir, "bin")
	build := exec.Command("go", "build", "-o", binaries+"/", "./cmd/quiesced", "./cmd/quiesced-guard", "./cmd/local-cpi", "./cmd/quiesce-cpi", "./cmd/quiesced-demo")
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Printf("cannot build: %v\n%s", err, out)
		return 1
	}
	fs, err := loopfs.Make(dir, "host", "xfs", loopfs.MinXFS+100<<20)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	host = fs.Mount
	code := m.Run()
	if err := fs.Close(); err != nil {
		fmt.Println(err)
		return 1
	}
	return code
}
