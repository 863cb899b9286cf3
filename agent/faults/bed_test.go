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

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/quiesce/loopfs"
)

// bed is a filesystem on which one case after the other is played, with the jobs of
// a machine beside it where a kind has any, and a filesystem that somebody else keeps
// frozen meanwhile.
type bed struct {
	kind      kind
	site      *site // nil for no jobs
	dir       string
	disk      *loopfs.FS
	bystander *loopfs.FS
	waiter    *exec.Cmd     // blocked on the bystander for as long as it is frozen
	woken     chan struct{} // closed when waiter has ended
	writer    *exec.Cmd
	log       *os.File // of writer
	cases     int
}

// sizes of the images, in bytes.
var sizes = map[string]int64{"ext4": 16 << 20, "xfs": loopfs.MinXFS, "btrfs": 128 << 20}

// fstypes are the filesystem types that are tested.
var fstypes = []string{"ext4", "xfs", "btrfs"}

// kind is what a bed has, and the level of the runs on it.
type kind struct {
	fstype  string
	level   agent.Level
	failing bool // one of the services ends as soon as it is started
	holds   bool // runs are holds: the test takes the snapshot
}

func (k kind) String() string {
	if k.holds {
		k.holds = false
		return "a hold, " + k.String()
	}
	if k.level == agent.LevelFreeze {
		return k.fstype
	}
	if k.failing {
		return string(k.level) + " with a failing service"
	}
	return string(k.level)
}

// beds lends beds.
type beds struct {
	t    *testing.T
	dir  string
	mu   sync.Mutex
	made []*bed          // guarded by mu
	free map[kind][]*bed // guarded by mu
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
	p := &beds{t: t, dir: dir, free: map[kind][]*bed{}}
	t.Cleanup(p.close)
	return p
}

// borrow is a bed of a kind, a new one if none is free.
func (p *beds) borrow(t *testing.T, k kind) *bed {
	t.Helper()
	b, isNew := p.find(k)
	if isNew {
		if err := b.make(); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (p *beds) find(k kind) (b *bed, isNew bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free[k]); n > 0 {
		b := p.free[k][n-1]
		p.free[k] = p.free[k][:n-1]
		return b, false
	}
	b = &bed{kind: k, dir: filepath.Join(p.dir, strconv.Itoa(len(p.made)))}
	p.made = append(p.made, b)
	return b, true
}

// giveBack is for beds that are as before: on others nothing more is played.
func (p *beds) giveBack(b *bed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free[b.kind] = append(p.free[b.kind], b)
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
	if b.disk, err = loopfs.Make(b.dir, "disk", b.kind.fstype, sizes[b.kind.fstype]); err != nil {
		return err
	}
	if b.bystander, err = loopfs.Make(b.dir, "bystander", "ext4", 8<<20); err != nil {
		return err
	}
	if err := errors.Join(b.startWriter(), b.freezeBystander()); err != nil || b.kind.level == agent.LevelFreeze {
		return err
	}
	b.site, err = newSite(filepath.Join(b.dir, "site"), b.disk.Mount, b.kind)
	return err
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
	errs := []error{b.site.close()}
	if b.waiter != nil {
		errs = append(errs, exec.Command("fsfreeze", "-u", b.bystander.Mount).Run())
		<-b.woken
	}
	if b.writer != nil && b.writer.Process != nil {
		_ = b.writer.Process.Kill()
		_ = b.writer.Wait()
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
