package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"syscall"
	"time"
)

// Limits of the state file. A record outside them is refused, written or read.
const (
	MaxFilesystems = 256
	maxPath        = 4095
	maxType        = 255
	maxRank        = 255
	maxDeadline    = 24 * time.Hour
	maxHeartbeat   = time.Minute
)

const (
	magic        = "QSCGUARD"
	version      = 1
	pageSize     = 4096
	headerSize   = 160
	entrySize    = 24
	blockSize    = 64
	bootIDSize   = 36
	maxRunID     = 64
	offsetCRC    = 20
	maxStateSize = (headerSize+MaxFilesystems*(entrySize+maxType+maxPath)+pageSize-1)/pageSize*pageSize +
		(1+MaxFilesystems)*blockSize
)

// Filesystem is a mounted filesystem as the survey found it. [Identify] fills
// in what identifies it.
type Filesystem struct {
	Path         string // mount point, absolute
	Major, Minor uint32 // st_dev of the mount point; on btrfs not mountinfo's device
	MountID      uint64 // STATX_MNT_ID, the first field of mountinfo
	Type         string // as in mountinfo; for the reader, not checked
	Rank         int    // order of freezing: 0 is the top of a stack of loop images
}

// State is how far the freeze of one filesystem has come.
type State uint32

// Values of State, as stored.
const (
	StateNone     State = iota // never frozen by us
	StateIntended              // FIFREEZE is, or is about to be, under way
	StateFrozen                // FIFREEZE succeeded
	StateThawing               // FITHAW is, or is about to be, under way
	StateThawed                // FITHAW succeeded
	StateFailed                // could not be opened, checked or frozen: errno
	StateLost                  // somebody else thawed it: the canary woke, or FITHAW answered EINVAL
	stateEnd
)

func (s State) String() string {
	names := [...]string{"none", "intended", "frozen", "thawing", "thawed", "failed", "lost"}
	if int(s) < len(names) {
		return names[s]
	}
	return "invalid"
}

// owed says whether a filesystem in this state may still need a thaw of ours.
func (s State) owed() bool {
	return s == StateIntended || s == StateFrozen || s == StateThawing
}

// Cause is why the guard thawed.
type Cause uint32

// Values of Cause, as stored.
const (
	CauseNone      Cause = iota // it has not
	CauseAsked                  // by Thaw
	CauseDeadline               // the deadline passed
	CausePipe                   // the pipe ended: the parent is dead
	CauseHeartbeat              // no heartbeat for the limit
	CauseSignal                 // a signal
	CauseFailed                 // a filesystem could not be frozen
	CauseProtocol               // the parent broke the protocol
	CauseRecovered              // not the guard: a recovery thawed
	CauseForeign                // somebody else thawed one of the filesystems
	causeEnd
)

// Causes lists every cause for which something can have been thawed.
func Causes() []Cause {
	var all []Cause
	for c := CauseNone + 1; c < causeEnd; c++ {
		all = append(all, c)
	}
	return all
}

func (c Cause) String() string {
	names := [...]string{"none", "asked", "deadline", "pipe", "heartbeat", "signal", "failed", "protocol", "recovered", "foreign"}
	if int(c) < len(names) {
		return names[c]
	}
	return "invalid"
}

// Record is what a state file says.
type Record struct {
	BootID      string
	RunID       string
	Creator     Process
	Deadline    time.Duration
	Heartbeat   time.Duration
	Filesystems []Filesystem

	Guard     Process // zero until the guard runs; before that nothing is frozen
	Cause     Cause
	Expedited bool   // RCU is expedited by us
	Cells     []Cell // one per filesystem
}

// Cell is the state of one filesystem. Times are CLOCK_BOOTTIME, 0 when it has
// not happened.
type Cell struct {
	State    State
	Errno    syscall.Errno
	BeganAt  time.Duration
	FrozenAt time.Duration
	ThawedAt time.Duration
	WokenAt  time.Duration // when the canary saw the thaw
	SentAt   time.Duration // when the canary went to wait for it
}

// owed says whether anything is left to be undone: a filesystem may still need a
// thaw of ours.
func (r *Record) owed() bool {
	if r.Expedited {
		return true
	}
	for _, c := range r.Cells {
		if c.State.owed() {
			return true
		}
	}
	return false
}

// unseen says whether a canary has yet to wake from a freeze that was thawed.
func (c Cell) unseen() bool { return c.State == StateThawed && c.SentAt != 0 && c.WokenAt == 0 }

func (r *Record) check() error {
	if len(r.BootID) != bootIDSize || strings.ContainsRune(r.BootID, 0) {
		return errors.New("boot id is malformed")
	}
	if !validRunID(r.RunID) {
		return fmt.Errorf("run id %q is not 1 to %d letters, digits, '.', '_' or '-'", r.RunID, maxRunID)
	}
	if r.Creator.PID <= 0 || int64(int32(r.Creator.PID)) != int64(r.Creator.PID) {
		return errors.New("creator's pid is out of range")
	}
	if r.Deadline < time.Millisecond || r.Deadline > maxDeadline {
		return fmt.Errorf("deadline %v is not within 1ms and %v", r.Deadline, maxDeadline)
	}
	if r.Heartbeat < time.Millisecond || r.Heartbeat > maxHeartbeat {
		return fmt.Errorf("heartbeat limit %v is not within 1ms and %v", r.Heartbeat, maxHeartbeat)
	}
	if n := len(r.Filesystems); n == 0 || n > MaxFilesystems {
		return fmt.Errorf("%d filesystems, not 1 to %d", n, MaxFilesystems)
	}
	for i, f := range r.Filesystems {
		if err := f.check(); err != nil {
			return fmt.Errorf("filesystem %d: %w", i, err)
		}
	}
	return nil
}

func (f *Filesystem) check() error {
	if len(f.Path) > maxPath || !strings.HasPrefix(f.Path, "/") || strings.ContainsRune(f.Path, 0) {
		return fmt.Errorf("path %.100q is not an absolute path of up to %d bytes", f.Path, maxPath)
	}
	if len(f.Type) > maxType || strings.ContainsRune(f.Type, 0) {
		return fmt.Errorf("type %.100q is malformed", f.Type)
	}
	if f.Rank < 0 || f.Rank > maxRank {
		return fmt.Errorf("rank %d is not within 0 and %d", f.Rank, maxRank)
	}
	return nil
}

func validRunID(s string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	return s != "" && len(s) <= maxRunID && strings.Trim(s, allowed) == ""
}

// encode returns the contents of a fresh state file: the descriptor section of
// r and cells of zeros.
func (r *Record) encode() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	b := make([]byte, headerSize, pageSize)
	copy(b, magic)
	le.PutUint32(b[8:], version)
	le.PutUint32(b[12:], uint32(len(r.Filesystems)))
	copy(b[24:], r.BootID)
	le.PutUint64(b[64:], uint64(r.Deadline.Milliseconds()))
	le.PutUint64(b[72:], uint64(r.Heartbeat.Milliseconds()))
	le.PutUint64(b[80:], uint64(r.Creator.PID))
	le.PutUint64(b[88:], r.Creator.StartTime)
	copy(b[96:headerSize], r.RunID)
	for _, f := range r.Filesystems {
		b = f.append(b)
	}
	cells := (len(b) + pageSize - 1) / pageSize * pageSize
	b = append(b, make([]byte, cells-len(b))...)
	le.PutUint32(b[16:], uint32(cells))
	le.PutUint32(b[offsetCRC:], crc32.ChecksumIEEE(b))
	return append(b, make([]byte, blockSize*(1+len(r.Filesystems)))...), nil
}

func (f *Filesystem) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, f.Major)
	b = le.AppendUint32(b, f.Minor)
	b = le.AppendUint64(b, f.MountID)
	b = le.AppendUint32(b, uint32(f.Rank))
	b = le.AppendUint16(b, uint16(len(f.Type)))
	b = le.AppendUint16(b, uint16(len(f.Path)))
	b = append(b, f.Type...)
	return append(b, f.Path...)
}

// ParseRecord parses the contents of a state file. It accepts exactly what the
// package writes.
func ParseRecord(b []byte) (*Record, error) {
	r, at, err := parseDescriptor(b)
	if err != nil {
		return nil, err
	}
	if err := r.parseCells(b[at:]); err != nil {
		return nil, err
	}
	return r, nil
}

// parseDescriptor parses the descriptor section of b and returns the offset of
// the cells, which are there in full.
func parseDescriptor(b []byte) (*Record, int, error) {
	count, cells, err := parseFrame(b)
	if err != nil {
		return nil, 0, err
	}
	le := binary.LittleEndian
	r := &Record{
		BootID:  string(b[24 : 24+bootIDSize]),
		RunID:   strings.TrimRight(string(b[96:headerSize]), "\x00"),
		Creator: Process{PID: int(int32(le.Uint64(b[80:]))), StartTime: le.Uint64(b[88:])},
	}
	if r.Deadline, err = milliseconds(b[64:]); err != nil {
		return nil, 0, err
	}
	if r.Heartbeat, err = milliseconds(b[72:]); err != nil {
		return nil, 0, err
	}
	rest := b[headerSize:cells]
	for range count {
		var f Filesystem
		if f, rest, err = parseFilesystem(rest); err != nil {
			return nil, 0, err
		}
		r.Filesystems = append(r.Filesystems, f)
	}
	if len(rest) >= pageSize || !zero(rest) || !zero(b[24+bootIDSize:64]) || le.Uint64(b[80:]) != uint64(r.Creator.PID) {
		return nil, 0, errors.New("stray bytes in the descriptor section")
	}
	return r, cells, r.check()
}

// parseFrame checks magic, version, lengths and checksum. It returns the number
// of filesystems and the offset of the cells.
func parseFrame(b []byte) (count, cells int, err error) {
	if len(b) < pageSize || string(b[:8]) != magic {
		return 0, 0, errors.New("not a guard's state file")
	}
	le := binary.LittleEndian
	if v := le.Uint32(b[8:]); v != version {
		return 0, 0, fmt.Errorf("version %d, not %d", v, version)
	}
	n, at := le.Uint32(b[12:]), le.Uint32(b[16:])
	if n == 0 || n > MaxFilesystems || at == 0 || at%pageSize != 0 || at > maxStateSize ||
		len(b) != int(at)+blockSize*(1+int(n)) {
		return 0, 0, errors.New("lengths do not fit together")
	}
	sum := crc32.ChecksumIEEE(b[:offsetCRC])
	sum = crc32.Update(sum, crc32.IEEETable, make([]byte, 4))
	if crc32.Update(sum, crc32.IEEETable, b[offsetCRC+4:at]) != le.Uint32(b[offsetCRC:]) {
		return 0, 0, errors.New("checksum of the descriptor section does not match")
	}
	return int(n), int(at), nil
}

func parseFilesystem(b []byte) (Filesystem, []byte, error) {
	short := errors.New("descriptor section is cut short")
	if len(b) < entrySize {
		return Filesystem{}, nil, short
	}
	le := binary.LittleEndian
	f := Filesystem{Major: le.Uint32(b), Minor: le.Uint32(b[4:]), MountID: le.Uint64(b[8:]), Rank: int(le.Uint32(b[16:]))}
	typeLen, pathLen := int(le.Uint16(b[20:])), int(le.Uint16(b[22:]))
	b = b[entrySize:]
	if len(b) < typeLen+pathLen {
		return Filesystem{}, nil, short
	}
	f.Type, f.Path = string(b[:typeLen]), string(b[typeLen:typeLen+pathLen])
	return f, b[typeLen+pathLen:], nil
}

func milliseconds(b []byte) (time.Duration, error) {
	ms := binary.LittleEndian.Uint64(b)
	if ms > uint64(maxDeadline.Milliseconds()) {
		return 0, fmt.Errorf("%d ms is out of range", ms)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// parseCells parses the cells, b, into r.
func (r *Record) parseCells(b []byte) error {
	ne := binary.NativeEndian
	pid, cause, expedited := ne.Uint64(b), ne.Uint64(b[16:]), ne.Uint64(b[24:])
	if pid > 1<<31-1 || cause >= uint64(causeEnd) || expedited > 1 || !zero(b[32:blockSize]) {
		return errors.New("guard's block is malformed")
	}
	r.Guard = Process{PID: int(pid), StartTime: ne.Uint64(b[8:])}
	r.Cause, r.Expedited = Cause(cause), expedited == 1
	for i := range r.Filesystems {
		b = b[blockSize:]
		state, errno := uint32(ne.Uint64(b)), uint32(ne.Uint64(b)>>32)
		if state >= uint32(stateEnd) || !zero(b[48:blockSize]) {
			return fmt.Errorf("cell of filesystem %d is malformed", i)
		}
		r.Cells = append(r.Cells, Cell{
			State:    State(state),
			Errno:    syscall.Errno(errno),
			BeganAt:  time.Duration(ne.Uint64(b[8:])),
			FrozenAt: time.Duration(ne.Uint64(b[16:])),
			ThawedAt: time.Duration(ne.Uint64(b[24:])),
			WokenAt:  time.Duration(ne.Uint64(b[32:])),
			SentAt:   time.Duration(ne.Uint64(b[40:])),
		})
	}
	return nil
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
