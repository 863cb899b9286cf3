package faults_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// How the tests are run; the Makefile passes what it is given.
var (
	campaign = flag.Int("campaign", 16, "how many random runs")
	thin     = flag.Int("thin", 6, "of the cases with jobs that differ least, play every so manieth")
	seed     = flag.Uint64("seed", 0, "seed of the first random run (default: the time)")
)

const (
	roleEnv = "FAULTS_TEST_ROLE"
	atOnce  = 6 // cases; half of each is waiting
)

// binaries is the directory of the programs under test.
var binaries string

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		os.Exit(playRole(role, os.Args[1]))
	}
	flag.Parse()
	if *seed == 0 {
		*seed = uint64(time.Now().Unix()) * 1000
	}
	_ = flag.Set("test.parallel", fmt.Sprint(atOnce))
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Println("these tests need root: they freeze filesystems")
		return 1
	}
	dir, err := os.MkdirTemp("", "faults-test-")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binaries = dir
	build := exec.Command("go", "build", "-tags", "failpoints", "-o", dir+"/", "./cmd/quiesced", "./cmd/quiesced-guard", "./cmd/local-cpi")
	build.Dir = "../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Printf("cannot build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// playRole is this test binary run as a helper that may be held up by a freeze.
func playRole(role, at string) int {
	switch role {
	case "write once":
		if err := os.WriteFile(filepath.Join(at, "written"), []byte("x"), 0o600); err != nil {
			return 1
		}
	case "write on":
		return writeOn(at)
	}
	return 0
}

// writeOn writes to a file again and again until it is killed or alone, and notes, where
// nothing is frozen, when each write began and when it had returned.
func writeOn(at string) int {
	file, err := os.Create(filepath.Join(at, "written-on"))
	if err != nil {
		return 1
	}
	for parent := os.Getppid(); os.Getppid() == parent; {
		began := time.Now().UnixNano()
		if _, err := file.WriteAt([]byte("x"), 0); err != nil {
			return 1
		}
		fmt.Println(began, time.Now().UnixNano())
		time.Sleep(5 * time.Millisecond)
	}
	return 0
}

// helper prepares a run of this test binary as a helper.
func helper(role, at string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", at)
	cmd.Env = append(os.Environ(), roleEnv+"="+role, "GORACE=atexit_sleep_ms=0")
	cmd.Dir = "/"
	return cmd
}
