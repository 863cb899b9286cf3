package diskcopy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// The copy's directory on the mount, and its name there.
const (
	directory = "quiesced"
	file      = "snapshots.json"
	fresh     = file + ".new"
)

// largest is how much a copy may have, in bytes.
const largest = 256 << 20

// exitNone is the exit code of a child that found no copy.
const exitNone = 3

// Main is the child: read MOUNT ID, or write MOUNT ID SIZE ASIDE. It returns its exit code.
// ID is the mount's, so that nothing is written below a mount point that was unmounted. ASIDE
// is a word that is added to the name of what is there already, which is kept so; or "".
func Main(args []string, in io.Reader, out, errs io.Writer) int {
	err := work(args, in, out)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, fs.ErrNotExist):
		return exitNone
	}
	_, _ = fmt.Fprintln(errs, err)
	return 1
}

func work(args []string, in io.Reader, out io.Writer) error {
	if len(args) < 3 {
		return errors.New("too few arguments")
	}
	mount, err := openMount(args[1], args[2])
	if err != nil {
		return err
	}
	defer mount.Close()
	switch {
	case args[0] == "read" && len(args) == 3:
		return read(mount, out)
	case args[0] == "write" && len(args) == 5:
		return write(mount, in, args[3], args[4])
	}
	return errors.New("unknown arguments")
}

// openMount opens a mount point if it still is the mount that is meant.
func openMount(path, id string) (*os.File, error) {
	want, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		return nil, err
	}
	mount, err := os.OpenFile(path, unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the mount: %v", plain(err)) //nolint:errorlint // a mount that is gone is no copy that is not there
	}
	var st unix.Statx_t
	err = unix.Statx(int(mount.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st)
	if err == nil && st.Mnt_id != want {
		err = errors.New("it is not mounted there any more")
	}
	if err != nil {
		_ = mount.Close()
		return nil, err
	}
	return mount, nil
}

// openDirectory opens the copy's directory, which must be root's alone: what lies in it is
// believed.
func openDirectory(mount *os.File) (*os.File, error) {
	fd, err := unix.Openat(int(mount.Fd()), directory, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the directory: %w", err)
	}
	dir := os.NewFile(uintptr(fd), directory)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && (st.Uid != 0 || st.Mode&0o077 != 0) {
		err = fmt.Errorf("the directory %q is not root's alone: owner %d, mode %04o", directory, st.Uid, st.Mode&0o7777)
	}
	if err != nil {
		_ = dir.Close()
		return nil, err
	}
	return dir, nil
}

func read(mount *os.File, out io.Writer) error {
	dir, err := openDirectory(mount)
	if err != nil {
		return err
	}
	defer dir.Close()
	fd, err := unix.Openat(int(dir.Fd()), file, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open the copy: %w", err)
	}
	f := os.NewFile(uintptr(fd), file)
	defer f.Close()
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() > largest) {
		err = fmt.Errorf("the copy is no file of %d bytes at most", largest)
	}
	if err == nil {
		_, err = io.Copy(out, f)
	}
	if err != nil {
		return fmt.Errorf("cannot read the copy: %v", plain(err)) //nolint:errorlint // it is there
	}
	return nil
}

func write(mount *os.File, in io.Reader, size, aside string) error {
	daemon := os.Getppid()
	doc, err := receive(in, size)
	if err != nil {
		return err
	}
	err = unix.Mkdirat(int(mount.Fd()), directory, 0o700)
	isNew := err == nil
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("cannot make the directory: %w", err)
	}
	dir, err := openDirectory(mount)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := fill(int(dir.Fd()), fresh, doc); err != nil {
		_ = unix.Unlinkat(int(dir.Fd()), fresh, 0)
		return fmt.Errorf("cannot write the copy: %w", plain(err))
	}
	if os.Getppid() != daemon {
		return errors.New("the daemon has ended: the next one knows better")
	}
	if err := replace(dir, aside); err != nil {
		return err
	}
	if isNew {
		return mount.Sync()
	}
	return nil
}

// receive reads a document, whole: a daemon that is killed leaves a part of one.
func receive(in io.Reader, size string) ([]byte, error) {
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n < 0 || n > largest {
		return nil, fmt.Errorf("cannot take %s bytes", size)
	}
	doc := make([]byte, n)
	if _, err := io.ReadFull(in, doc); err != nil {
		return nil, fmt.Errorf("cannot get the copy: %v", err) //nolint:errorlint // nobody decides on it
	}
	return doc, nil
}

// replace puts the copy that was written in the place of the one that is there.
func replace(dir *os.File, aside string) error {
	at := int(dir.Fd())
	if aside != "" {
		if err := unix.Renameat(at, file, at, file+"."+aside); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("cannot put aside what is there: %w", err)
		}
	}
	if err := unix.Renameat(at, fresh, at, file); err != nil {
		return fmt.Errorf("cannot put the copy in its place: %w", err)
	}
	return dir.Sync()
}

func fill(at int, name string, doc []byte) error {
	if err := unix.Unlinkat(at, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	fd, err := unix.Openat(at, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(doc)
	return errors.Join(err, f.Sync(), f.Close())
}

// plain is an error without the path, which whoever reports it names.
func plain(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
