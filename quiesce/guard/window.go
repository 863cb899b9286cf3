package guard

import (
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/quiesce/failpoint"
)

// mount is a filesystem in the guard.
type mount struct {
	Filesystem
	fd   int
	cell cell

	order   atomic.Int32 // 's' or 'f', for its freezer
	ordered gate         // opened when there is an order
	melt    gate         // opened when its thawer is to thaw

	begun   atomic.Bool // a freeze was, or is about to be, intended
	settled atomic.Bool // that freeze has returned
}

// byRank groups mounts by rank, lowest first.
func byRank(mounts []*mount) [][]*mount {
	sorted := slices.Clone(mounts)
	slices.SortStableFunc(sorted, func(a, b *mount) int { return a.Rank - b.Rank })
	var ranks [][]*mount
	for i, m := range sorted {
		if i == 0 || m.Rank != sorted[i-1].Rank {
			ranks = append(ranks, nil)
		}
		last := len(ranks) - 1
		ranks[last] = append(ranks[last], m)
	}
	return ranks
}

// sync writes out all filesystems and says whether every one succeeded.
func (p *program) sync() bool {
	return p.each(p.mounts, 's') && !slices.ContainsFunc(p.mounts, func(m *mount) bool { return m.cell.errno() != 0 })
}

// freeze freezes all filesystems. It returns at the first failure, while
// others may be under way still.
func (p *program) freeze() bool {
	p.expedite()
	defer p.relax()
	for _, rank := range p.ranks {
		if !p.each(rank, 'f') {
			return false
		}
	}
	return true
}

// each has order carried out for all mounts at once and waits for them; an
// 'f' that fails ends the wait. One mount needs no hand-off.
func (p *program) each(mounts []*mount, order byte) bool {
	if len(mounts) == 1 {
		return mounts[0].do(order, &p.ending)
	}
	for _, m := range mounts {
		m.order.Store(int32(order))
		m.ordered.open()
	}
	for range mounts {
		p.returned.pass()
		if order == 'f' && slices.ContainsFunc(mounts, (*mount).failed) {
			return false
		}
	}
	return true
}

// freezer carries out orders for m on a thread of its own.
func (m *mount) freezer(p *program) {
	for {
		m.ordered.pass()
		m.do(byte(m.order.Load()), &p.ending)
		p.returned.open()
	}
}

func (m *mount) do(order byte, ending *atomic.Bool) bool {
	if order == 's' {
		m.sync()
		return true
	}
	return m.freeze(ending)
}

func (m *mount) sync() {
	var errno = unix.Errno(0)
	if err := unix.Syncfs(m.fd); err != nil {
		errno = toErrno(err)
	}
	m.cell.set(StateNone, errno)
}

// freeze issues FIFREEZE unless the end has begun. begun is set before ending
// is looked at, and end sets ending before it looks at begun: one of them sees
// the other.
func (m *mount) freeze(ending *atomic.Bool) bool {
	m.begun.Store(true)
	defer m.settled.Store(true)
	if ending.Load() {
		return false
	}
	m.cell.began.Store(boottime())
	m.cell.set(StateIntended, 0)
	failpoint.Hit("intended")
	if errno := ioctl(m.fd, fiFreeze); errno != 0 {
		m.cell.set(StateFailed, errno)
		return false
	}
	failpoint.Hit("froze")
	m.cell.frozenAt.Store(boottime())
	m.cell.set(StateFrozen, 0)
	failpoint.Hit("froze-recorded")
	return true
}

// failed says whether m's freeze has returned and not succeeded.
func (m *mount) failed() bool {
	return m.settled.Load() && m.cell.state() != StateFrozen
}

// rankPatience bounds how long the thaw of one rank holds up the next: a FITHAW
// may be stuck behind a filesystem that is yet to be thawed.
const rankPatience = 50 // ms, for each of its filesystems

// thaw thaws what is frozen, last rank first, and returns when all is. A freeze
// under way holds nobody up: the others are thawed, which frees most.
func (p *program) thaw() {
	if len(p.mounts) == 1 {
		p.mounts[0].thaw()
		return
	}
	left := len(p.mounts)
	for _, rank := range slices.Backward(p.ranks) {
		settled := 0
		for _, m := range rank {
			if m.isSettled() {
				settled++
			}
			m.melt.open()
		}
		left -= p.await(settled)
	}
	for range left {
		p.thawed.pass()
	}
}

// await waits for n thawers, as long as rankPatience allows, and returns how
// many were done.
func (p *program) await(n int) int {
	for done := range n {
		if !p.thawed.passWithin(rankPatience) {
			return done
		}
	}
	return n
}

// thawer thaws m on a thread of its own.
func (m *mount) thawer(p *program) {
	for {
		m.melt.pass()
		m.thaw()
		p.thawed.open()
	}
}

// isSettled says whether m has no freeze under way.
func (m *mount) isSettled() bool {
	return !m.begun.Load() || m.settled.Load()
}

// thaw thaws m if its freeze succeeded, once that has returned: a FITHAW before
// would answer EINVAL or be held up, and nothing else makes the freeze return.
func (m *mount) thaw() {
	if !m.begun.Load() {
		return
	}
	for !m.settled.Load() {
		pause(1)
	}
	if m.cell.state() == StateFrozen {
		m.thawOurs()
	}
}

// thawOurs thaws a freeze of ours that has completed, unless somebody else has:
// what is frozen now, if anything, is theirs.
func (m *mount) thawOurs() {
	if m.lost() {
		m.cell.set(StateLost, 0)
		return
	}
	m.cell.set(StateThawing, 0)
	failpoint.Hit("thawing")
	errno := m.fithaw()
	failpoint.Hit("thawed")
	m.conclude(errno)
	failpoint.Hit("thaw-recorded")
}

// lost says whether the canary woke from a freeze that we have not ended.
func (m *mount) lost() bool {
	return m.cell.state() == StateFrozen && m.cell.wokenAt.Load() != 0
}

// fithaw issues the FITHAW. When the filesystem itself fails to thaw (EIO) it
// stays frozen, and more attempts are made.
func (m *mount) fithaw() unix.Errno {
	const attempts = 5
	for i := 1; ; i++ {
		errno := ioctl(m.fd, fiThaw)
		if errno == 0 || errno == unix.EINVAL || i == attempts {
			return errno
		}
		pause(10)
	}
}

// conclude records FITHAW's answer.
func (m *mount) conclude(errno unix.Errno) {
	switch errno {
	case 0:
		m.cell.thawAt.Store(boottime())
		m.cell.set(StateThawed, 0)
	case unix.EINVAL:
		m.cell.set(StateLost, 0)
	default:
		m.cell.set(StateFrozen, errno)
	}
}
