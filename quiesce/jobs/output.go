package jobs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// tailSize bounds what errors quote of an output, in bytes.
const tailSize = 1024

// output is where a script prints to: a log of its own, or else memory, where the
// end of it is kept.
type output struct {
	log   *os.File
	from  int64 // where in the log this run begins
	limit int   // of what is kept, in bytes

	mu   sync.Mutex // guards what follows
	kept []byte
	cut  bool // there was more before what is kept
}

// output opens a log of a script. One that cannot be opened is done without.
func (r *Runner) output(s Script, stream string) *output {
	o := &output{limit: tailSize}
	if s.Job == "" {
		return o
	}
	log, err := r.Layout.openLog(s.Job, filepath.Base(s.Name)+"."+stream+".log")
	if err != nil {
		r.warn("what a script prints is not logged", s, err)
		return o
	}
	o.log = log
	o.from, _ = log.Seek(0, io.SeekEnd)
	return o
}

func (o *output) writer() io.Writer {
	if o.log != nil {
		return o.log
	}
	return o
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kept = append(o.kept, p...)
	if over := len(o.kept) - o.limit; over > 0 {
		o.kept, o.cut = append(o.kept[:0], o.kept[over:]...), true
	}
	return len(p), nil
}

// text is what is kept, and whether there was more before it.
func (o *output) text() (string, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.kept), o.cut
}

func (o *output) close() {
	if o.log != nil {
		_ = o.log.Close()
	}
}

// tail is the end of what was printed, cut between lines, or else characters.
func (o *output) tail() string {
	text, cut := o.text()
	if o.log != nil {
		text, cut = o.read()
	}
	if over := len(text) - tailSize; over > 0 {
		text, cut = text[over:], true
	}
	if cut {
		text = fromBoundary(text)
	}
	return strings.TrimSpace(strings.ToValidUTF8(text, "\uFFFD"))
}

// read reads the end of the log, and says whether there is more before it. A log that
// is shorter than it was has been emptied meanwhile, as logrotate does.
func (o *output) read() (text string, cut bool) {
	size, err := o.log.Seek(0, io.SeekEnd)
	if err != nil {
		return "", false
	}
	from := o.from
	if size < from {
		from = 0
	}
	start := max(from, size-tailSize)
	end := make([]byte, size-start)
	n, _ := o.log.ReadAt(end, start)
	return string(end[:n]), start > from
}

func fromBoundary(text string) string {
	if _, lines, ok := strings.Cut(text, "\n"); ok && strings.TrimSpace(lines) != "" {
		return lines
	}
	for text != "" && !utf8.RuneStart(text[0]) {
		text = text[1:]
	}
	return text
}

// openLog opens a log of a job for appending, and makes it and its directory if
// they are missing. Any process of the job may put something else in their place,
// so that no link is followed, and nothing but a file with this one name is
// written to.
func (l Layout) openLog(job, name string) (*os.File, error) {
	path := filepath.Join(l.Root, "sys", "log", job, name)
	dir, err := l.openLogs(job)
	if err != nil {
		return nil, fmt.Errorf("cannot open %q: %w", path, err)
	}
	defer unix.Close(dir)
	const flags = unix.O_RDWR | unix.O_APPEND | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, flags, 0o640)
	if err == nil {
		err = usable(fd)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot open %q: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openLogs opens the directory of a job's logs. A new one has the group of that in
// which it lies.
func (l Layout) openLogs(job string) (int, error) {
	logs := filepath.Join(l.Root, "sys", "log")
	if err := os.MkdirAll(logs, 0o750); err != nil {
		return -1, err
	}
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	parent, err := unix.Open(logs, flags, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	made := unix.Mkdirat(parent, job, 0o770) == nil
	dir, err := unix.Openat(parent, job, flags|unix.O_NOFOLLOW, 0)
	if err != nil || !made {
		return dir, err
	}
	var st unix.Stat_t
	if unix.Fstat(parent, &st) == nil {
		_ = unix.Fchown(dir, -1, int(st.Gid))
	}
	return dir, unix.Fchmod(dir, 0o770)
}

// little is how much room, in bytes, a filesystem has that counts as full: a script
// that is given a log there fails at what it prints.
const little = 1 << 20

// usable says why a file is not one to log to. It was opened so that nothing that
// is something else makes us wait, which scripts must not inherit.
func usable(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	var room unix.Statfs_t
	switch err := unix.Fstatfs(fd, &room); {
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("it is no regular file")
	case st.Nlink > 1:
		return errors.New("it has other names")
	case room.Blocks > 0 && room.Bfree*uint64(room.Bsize) < little:
		return unix.ENOSPC
	}
	return unix.SetNonblock(fd, false)
}
