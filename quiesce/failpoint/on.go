//go:build failpoints

package failpoint

import (
	"os"
	"strconv"
	"syscall"
	"time"
)

const variable = "QUIESCED_FAILPOINTS"

var dir = os.Getenv(variable)

// Hit marks a place where a test may hold the program. It waits in system
// calls, as the guard's threads do, which may use no timer.
func Hit(name string) {
	if dir == "" {
		return
	}
	starve()
	waiting := dir + "/" + name + ".hit"
	if syscall.Rename(dir+"/"+name, waiting) != nil {
		return
	}
	_ = os.WriteFile(waiting, []byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	for exists(waiting) {
		starve()
		_ = syscall.Nanosleep(&syscall.Timespec{Nsec: int64(time.Millisecond)}, nil)
	}
	starve()
}

// Environ is what a child needs in its environment to have failpoints, too.
func Environ() []string {
	if dir == "" {
		return nil
	}
	return []string{variable + "=" + dir}
}

func exists(path string) bool { return syscall.Access(path, 0) == nil }

// hoard keeps what starve asks for from being optimized away.
var hoard [][]byte

// starve ends the process as the runtime does that gets no memory, if the test
// says so. The test has limited what the process can get.
func starve() {
	for exists(dir + "/oom." + strconv.Itoa(os.Getpid())) {
		hoard = append(hoard, make([]byte, 1<<30))
	}
}
