package fscheck_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/fscheck"
)

// roleEnv makes the test binary a daemon that is killed while a checker runs.
const roleEnv = "FSCHECK_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) != "" {
		go func() { _, _ = fscheck.Run(context.Background(), "sleep", "4712") }()
		for !runs("sleep 4712") {
			time.Sleep(time.Millisecond)
		}
		fmt.Println("runs")
		select {}
	}
	os.Exit(m.Run())
}

// runs says whether a process with a command line is there.
func runs(line string) bool {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err == nil && strings.TrimSuffix(strings.ReplaceAll(string(text), "\x00", " "), " ") == "/usr/bin/"+line {
			return true
		}
	}
	return false
}

func gone(t *testing.T, line string) {
	t.Helper()
	for until := time.Now().Add(time.Minute); runs(line); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%q still runs", line)
		}
	}
}

func TestCheckerThatHangsIsEndedWithAllItStarted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	go func() {
		for !runs("sleep 4711") {
			time.Sleep(time.Millisecond)
		}
		cancel(errors.New("it took too long"))
	}()
	_, err := fscheck.Run(ctx, "sh", "-c", "/usr/bin/sleep 4711 & wait")
	if err == nil || !strings.Contains(err.Error(), "it took too long") {
		t.Errorf("got %v", err)
	}
	gone(t, "sleep 4711")
}

func TestCheckerEndsWithTheDaemon(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"=daemon")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	said, err := bufio.NewReader(out).ReadString('\n')
	must(t, errors.Join(err, cmd.Process.Kill()))
	_ = cmd.Wait()
	if said != "runs\n" {
		t.Fatalf("got %q", said)
	}
	gone(t, "sleep 4712")
}

func TestKilledCheckerIsNoVerdict(t *testing.T) {
	if _, err := fscheck.Run(t.Context(), "sh", "-c", "kill -9 $$"); err == nil || !strings.Contains(err.Error(), "killed by signal 9") {
		t.Errorf("got %v", err)
	}
	if status, err := fscheck.Run(t.Context(), "sh", "-c", "exit 4"); status != 4 || err != nil {
		t.Errorf("got %d, %v", status, err)
	}
}
