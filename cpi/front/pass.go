package front

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// PassOn becomes the real CPI, with the request on its standard input. It returns
// only when that cannot be done.
func PassOn(cpi string, document []byte) error {
	request, err := requestFile(document)
	if err != nil {
		return err
	}
	if err := unix.Dup2(int(request.Fd()), 0); err != nil {
		return fmt.Errorf("cannot hand on the request: %w", err)
	}
	return fmt.Errorf("cannot run the CPI %q: %w", cpi, syscall.Exec(cpi, []string{cpi}, os.Environ()))
}

// requestFile is a file in memory that holds the request. Unlike a pipe it takes
// one of any size, and needs nobody to feed it.
func requestFile(document []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("request", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot hand on the request: %w", err)
	}
	f := os.NewFile(uintptr(fd), "request")
	if _, err = f.Write(document); err == nil {
		_, err = f.Seek(0, 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot hand on the request: %w", err)
	}
	return f, nil
}
