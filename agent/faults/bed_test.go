package faults_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// bed is a filesystem on which one case after the other is played, and one that
// somebody else keeps frozen meanwhile.
type bed struct {
	fstype    string
	dir       string
	disk      *loopfs.FS
	bystander *loopfs.FS
	waiter    *exec.Cmd     // blocked on the bystander for as long as it is frozen
	woken     chan struct{} // closed when waiter has ended
	writer    *exec.Cmd
	log       *os.File  // of writer
	watchdog  *exec.Cmd // thaws and unmounts when this process is gone
	cases     int
}

// sizes of the images, in bytes.
var sizes = map[string]int64{"ext4": 16 << 20, "xfs": loopfs.MinXFS, "btrfs": 128 << 20}

// fstypes are the filesystem types that are tested.
var fstypes = []string{"ext4", "xfs", "btrfs"}

// beds lends beds.
type beds struct {
	t    *testing.T
	dir  string
	mu   sync.Mutex
	made []*bed            // guarded by mu
	free map[string][]*bed // guarded by mu
}

// newBeds lies in memory where there is room for images: how fast the machine's
// disk is does not matter here.
func newBeds(t *testing.T) *beds {
	t.Helper()
	base := ""
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		base = "/dev/shm"
	}
	dir, err := os.MkdirTemp(base, "faults-")
	if err != nil {
		t.Fatal(err)
	}
	p := &beds{t: t, dir: dir, free: map[string][]*bed{}}
	t.Cleanup(p.close)
	return p
}

// borrow is a bed with a filesystem of a type, a new one if none is free.
func (p *beds) borrow(t *testing.T, fstype string) *bed {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free[fstype]); n > 0 {
		b := p.free[fstype][n-1]
		p.free[fstype] = p.free[fstype][:n-1]
		return b
	}
	b := &bed{fstype: fstype, dir: filepath.Join(p.dir, strconv.Itoa(len(p.made)))}
	p.made = append(p.made, b)
	if err := b.make(); err != nil {
		t.Fatal(err)
	}
	return b
}

func (p *beds) giveBack(b *bed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free[b.fstype] = append(p.free[b.fstype], b)
}

func (p *beds) close() {
	var errs []error
	for _, b := range p.made {
		errs = append(errs, b.close())
	}
	if err := errors.Join(append(errs, os.RemoveAll(p.dir))...); err != nil {
		p.t.Error(err)
	}
}

func (b *bed) make() (err error) {
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		return err
	}
	if b.disk, err = loopfs.Make(b.dir, "disk", b.fstype, sizes[b.fstype]); err != nil {
		return err
	}
	if b.bystander, err = loopfs.Make(b.dir, "bystander", "ext4", 8<<20); err != nil {
		return err
	}
	const thaw = `while kill -0 $1; do sleep 1; done; fsfreeze -u "$2"; fsfreeze -u "$3"; sleep 2; umount "$2" "$3"`
	b.watchdog = exec.Command("sh", "-c", thaw, "sh", strconv.Itoa(os.Getpid()), b.disk.Mount, b.bystander.Mount)
	return errors.Join(b.watchdog.Start(), b.startWriter(), b.freezeBystander())
}

func (b *bed) startWriter() (err error) {
	if b.log, err = os.OpenFile(filepath.Join(b.dir, "writes"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return err
	}
	b.writer = helper("write on", b.disk.Mount)
	b.writer.Stdout = b.log
	return b.writer.Start()
}

// freezeBystander freezes what must stay so, and has somebody wait for its thaw.
func (b *bed) freezeBystander() error {
	if out, err := exec.Command("fsfreeze", "-f", b.bystander.Mount).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot freeze the bystander: %w: %s", err, out)
	}
	b.waiter, b.woken = helper("write once", b.bystander.Mount), make(chan struct{})
	if err := b.waiter.Start(); err != nil {
		return err
	}
	go func() { _ = b.waiter.Wait(); close(b.woken) }()
	return nil
}

// bystanderFrozen says whether the bystander was frozen all the time.
func (b *bed) bystanderFrozen() bool {
	select {
	case <-b.woken:
		return false
	default:
		return true
	}
}

// close thaws what the test froze, and removes everything.
func (b *bed) close() error {
	errs := []error{}
	if b.waiter != nil {
		errs = append(errs, exec.Command("fsfreeze", "-u", b.bystander.Mount).Run())
		<-b.woken
	}
	for _, cmd := range []*exec.Cmd{b.writer, b.watchdog} {
		if cmd != nil && cmd.Process != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	for _, fs := range []*loopfs.FS{b.bystander, b.disk} {
		if fs != nil {
			errs = append(errs, fs.Close())
		}
	}
	return errors.Join(errs...)
}

// writable says whether a process can write to the disk.
func (b *bed) writable(within time.Duration) bool {
	cmd := helper("write once", b.disk.Mount)
	if cmd.Start() != nil {
		return false
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return err == nil
	case <-time.After(within):
		return false
	}
}
