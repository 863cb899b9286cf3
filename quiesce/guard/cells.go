package guard

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cells are the mutable part of a mapped state file. The mapping lasts as long
// as the process.
type cells struct {
	mem []byte
	at  int // offset of the guard's block
}

// cell is one filesystem's block.
type cell struct {
	status                  *atomic.Uint64 // state, errno << 32
	began, frozenAt, thawAt *atomic.Uint64
	wokenAt, sentAt         *atomic.Uint64 // written by the canary
}

// mapState maps the state file open as fd and parses its descriptor section.
func mapState(fd int) (*Record, cells, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, cells{}, err
	}
	if st.Size < pageSize || st.Size > maxStateSize {
		return nil, cells{}, unix.EFBIG
	}
	mem, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, cells{}, err
	}
	r, at, err := parseDescriptor(mem)
	return r, cells{mem: mem, at: at}, err
}

// word returns the word at off bytes past the start of the cells.
func (c cells) word(off int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&c.mem[c.at+off]))
}

func (c cells) setGuard(p Process) {
	c.word(8).Store(p.StartTime)
	c.word(0).Store(uint64(p.PID))
}

func (c cells) setCause(cause Cause) { c.word(16).Store(uint64(cause)) }

func (c cells) cause() Cause { return Cause(c.word(16).Load()) }

// setExpedited notes whether RCU is expedited by us.
func (c cells) setExpedited(on bool) {
	var word uint64
	if on {
		word = 1
	}
	c.word(24).Store(word)
}

func (c cells) expedited() bool { return c.word(24).Load() != 0 }

func (c cells) filesystem(i int) cell {
	off := blockSize * (1 + i)
	return cell{status: c.word(off), began: c.word(off + 8), frozenAt: c.word(off + 16), thawAt: c.word(off + 24), wokenAt: c.word(off + 32), sentAt: c.word(off + 40)}
}

func (c cell) set(s State, errno syscall.Errno) {
	c.status.Store(uint64(s) | uint64(errno)<<32)
}

func (c cell) state() State { return State(uint32(c.status.Load())) }

func (c cell) errno() syscall.Errno { return syscall.Errno(c.status.Load() >> 32) }
