package guard

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"

	"github.com/quiesced/quiesced/quiesce/failpoint"
)

// Binary is the guard's executable, held open: it runs even when its package
// has been removed.
type Binary struct {
	file *os.File

	mu   sync.Mutex
	runs map[string]<-chan struct{} // guarded by mu: by state file, closed at the end of a "thaw" run that was held up
}

// OpenBinary opens the executable at path.
func OpenBinary(path string) (*Binary, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open the guard: %w", err)
	}
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Mode()&0o111 == 0) {
		err = &os.PathError{Op: "run", Path: path, Err: os.ErrPermission}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot open the guard: %w", err)
	}
	return &Binary{file: f}, nil
}

// Close closes the executable. Guards that run are not affected.
func (b *Binary) Close() error { return b.file.Close() }

// keepRun remembers a "thaw" run over a state file that was killed and is held up.
func (b *Binary) keepRun(path string, ended <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.runs == nil {
		b.runs = map[string]<-chan struct{}{}
	}
	b.runs[path] = ended
}

// awaitRun waits for the end of such a run, and says whether there is none any
// more.
func (b *Binary) awaitRun(ctx context.Context, path string) bool {
	b.mu.Lock()
	ended := b.runs[path]
	b.mu.Unlock()
	if ended == nil {
		return true
	}
	select {
	case <-ended:
	case <-ctx.Done():
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.runs, path)
	return true
}

// command prepares a run of b with state as descriptor 3, itself as 4 and
// further files after these. The executable is named through its descriptor in
// the child, because those of the parent may be overwritten before the exec.
func (b *Binary) command(state *os.File, args []string, further ...*os.File) *exec.Cmd {
	return &exec.Cmd{
		Path:        "/proc/self/fd/" + strconv.Itoa(binaryFD),
		Args:        append([]string{"quiesced-guard"}, args...),
		Env:         append(failpoint.Environ(), "GOGC=off"),
		Dir:         "/",
		ExtraFiles:  append([]*os.File{state, b.file}, further...),
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
}

// Command prepares a run of b that is no guard's: it has no state file, and takes
// its arguments as the program's.
func (b *Binary) Command(args ...string) *exec.Cmd {
	return &exec.Cmd{
		Path:        "/proc/self/fd/3",
		Args:        append([]string{"quiesced-guard"}, args...),
		Env:         []string{},
		Dir:         "/",
		ExtraFiles:  []*os.File{b.file},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
}
