package guard

import (
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// program is a running guard.
//
// Two threads, the crew, share the waiting: the one that holds the baton waits
// for the next event, passes the baton on, and acts upon the event itself. So
// FIFREEZE is issued by the thread that read the command, and somebody always
// watches the deadline.
type program struct {
	rec    *Record
	cells  cells
	mounts []*mount
	ranks  [][]*mount // in the order of freezing

	baton  gate // lets one of the crew wait for the next event
	caught chan os.Signal
	rcu    rcu
	over   gate // opened when status is set
	status atomic.Int32

	// Only the holder of the baton uses these.
	timer    int
	poll     [3]unix.PollFd // timer, commands, the canary
	lastByte uint64         // CLOCK_MONOTONIC, ns
	watching bool           // from 'f' on: heartbeats are due

	mu    sync.Mutex // guards phase, and the order of answers
	phase phase

	ending   atomic.Bool // no freeze may begin any more
	returned gate        // opened by each freezer that is done with its order
	thawed   gate        // opened by each thawer that is done
}

// crewSize is two: one thread acts, one watches. What either does after the
// end has begun is over.
const crewSize = 2

// phase is what the guard is doing.
type phase int

const (
	idle phase = iota
	syncing
	freezing
	frozen
	ended
)

// event is what the holder of the baton waits for: a command to carry out, or
// the cause of the end.
type event struct {
	command byte
	cause   Cause
}

func newProgram(rec *Record, cells cells) (*program, error) {
	p := &program{rec: rec, cells: cells, caught: make(chan os.Signal, 1), rcu: openRCU()}
	for i, f := range rec.Filesystems {
		p.mounts = append(p.mounts, &mount{Filesystem: f, fd: -1, cell: cells.filesystem(i)})
	}
	p.ranks = byRank(p.mounts)
	gates := []*gate{&p.baton, &p.over, &p.returned, &p.thawed}
	for _, m := range p.mounts {
		gates = append(gates, &m.ordered, &m.melt)
	}
	for _, g := range gates {
		var err error
		if *g, err = newGate(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// crew is the life of one of the crew's threads.
func (p *program) crew() {
	for {
		p.baton.pass()
		e := p.wait()
		if e.cause != CauseNone {
			p.end(e.cause) // nothing is waited for any more: the baton stays
		}
		p.baton.open()
		p.act(e.command)
	}
}

// wait waits for the next event. The deadline comes first, so that no flood of
// commands hides it; waiting bytes come before the heartbeat limit is judged,
// so that a guard that was not scheduled for a while does not blame its parent.
func (p *program) wait() event {
	for {
		for i := range p.poll {
			p.poll[i].Revents = 0
		}
		if _, err := unix.Poll(p.poll[:], p.patience()); err != nil {
			continue
		}
		if p.poll[0].Revents != 0 {
			return event{cause: CauseDeadline}
		}
		if p.poll[2].Revents != 0 {
			gate(wokenFD).pass()
			if slices.ContainsFunc(p.mounts, (*mount).lost) {
				return event{cause: CauseForeign}
			}
			continue
		}
		if p.poll[1].Revents != 0 {
			if e, ok := p.read(); ok {
				return e
			}
			continue
		}
		if p.watching && monotonic()-p.lastByte >= uint64(p.rec.Heartbeat) {
			return event{cause: CauseHeartbeat}
		}
	}
}

// patience is the time until the heartbeat limit, in ms, rounded up. The limit
// is on CLOCK_MONOTONIC: a suspended machine beats no heart.
func (p *program) patience() int {
	if !p.watching {
		return -1
	}
	left := int64(p.rec.Heartbeat) - int64(monotonic()-p.lastByte)
	return int(max(left, 0)/int64(time.Millisecond)) + 1
}

// read reads one byte of the pipe.
func (p *program) read() (event, bool) {
	var b [1]byte
	n, err := unix.Read(commandsFD, b[:])
	if err == unix.EINTR || err == unix.EAGAIN {
		return event{}, false
	}
	if err != nil || n == 0 {
		return event{cause: CausePipe}, true
	}
	p.lastByte = monotonic()
	return p.take(b[0])
}

// take judges a command byte.
func (p *program) take(command byte) (event, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case command == '.':
		return event{}, false
	case command == 't':
		return event{cause: CauseAsked}, true
	case command == 's' && p.phase == idle:
		p.phase = syncing
	case command == 'f' && p.phase == idle:
		p.phase = freezing
		p.watching = true
		if p.arm() != nil {
			return event{cause: CauseFailed}, true
		}
	default:
		return event{cause: CauseProtocol}, true
	}
	return event{command: command}, true
}

// arm starts the deadline.
func (p *program) arm() error {
	t := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(p.rec.Deadline))}
	return unix.TimerfdSettime(p.timer, 0, &t, nil)
}

// act carries out 's' or 'f'.
func (p *program) act(command byte) {
	switch {
	case command == 's' && p.sync():
		p.become(idle, "synced")
	case command == 's':
		p.become(idle, "unsynced")
	case p.freeze():
		p.become(frozen, "frozen")
	default:
		p.end(CauseFailed)
	}
}

// become answers, unless the end has begun meanwhile.
func (p *program) become(next phase, line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != ended {
		p.phase = next
		answer(line)
	}
}

// end thaws and ends the guard, and does not return. The first cause counts; a
// thread that comes with another one has nothing left to do.
func (p *program) end(cause Cause) {
	p.mu.Lock()
	first := p.phase != ended
	p.phase = ended
	p.mu.Unlock()
	if !first {
		select {}
	}
	p.cells.setCause(cause)
	p.ending.Store(true)
	p.thaw()
	p.relax()
	p.status.Store(int32(p.verdict(cause)))
	p.over.open()
	select {}
}

// verdict gives the last answer and the exit status.
func (p *program) verdict(cause Cause) int {
	for _, m := range p.mounts {
		if cause == CauseFailed || m.cell.state().owed() {
			answer("failed")
			return exitFailed
		}
	}
	answer("thawed")
	if cause == CauseProtocol {
		return exitProtocol
	}
	return exitThawed
}
