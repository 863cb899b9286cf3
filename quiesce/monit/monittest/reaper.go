package monittest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reaperVariable has the program be the reaper, which runs its arguments for every line
// on stdin, and names the file for what they print.
const reaperVariable = "QUIESCED_MONITTEST_REAPER"

func init() {
	if output := os.Getenv(reaperVariable); output != "" {
		reap(output)
		os.Exit(0)
	}
}

// reap starts the command for each line, prints its pid, and kills all that descends
// from it at the end of stdin.
func reap(output string) {
	_ = os.Unsetenv(reaperVariable)
	to, err := os.OpenFile(output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err == nil {
		err = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot reap:", err)
		os.Exit(1)
	}
	var starting sync.Mutex // a child is not reaped while exec.Cmd waits for its start
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	go func() {
		for range ended {
			starting.Lock()
			reapEnded()
			starting.Unlock()
		}
	}()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		starting.Lock()
		cmd := exec.Command(os.Args[1], os.Args[2:]...) //nolint:gosec // it is started with them by this package
		cmd.Stdout, cmd.Stderr = to, to
		err := cmd.Start()
		starting.Unlock()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		_, _ = io.WriteString(os.Stdout, strconv.Itoa(cmd.Process.Pid)+"\n")
	}
	for killChildren() {
		time.Sleep(5 * time.Millisecond)
	}
}

func reapEnded() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if pid <= 0 || err != nil {
			return
		}
	}
}

// killChildren says whether there are any. What they leave behind are children then.
func killChildren() bool {
	files, _ := filepath.Glob("/proc/self/task/*/children")
	found := false
	for _, file := range files {
		b, _ := os.ReadFile(file)
		for _, field := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(field)
			if err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				found = true
			}
		}
	}
	return found
}
