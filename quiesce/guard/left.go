package guard

import (
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// thawLeft is the "thaw" run: it thaws what a guard left frozen. guardHeld says
// that the guard was killed but is held up in the kernel; descriptor 5 is its
// pidfd then. The caller bounds the run's time.
func (p *program) thawLeft(guardHeld bool) int {
	runtime.GOMAXPROCS(len(p.mounts) + 2)
	gone := func() bool { return !guardHeld || fired(pidfdFD, 0) }
	if p.cells.cause() == CauseNone {
		p.cells.setCause(CauseRecovered)
	}
	p.relax()
	left := 0
	for _, rank := range slices.Backward(p.ranks) {
		started := 0
		for _, m := range rank {
			if m.cell.state().owed() {
				started++
				go func() { m.recover(gone); p.thawed.open() }()
			}
		}
		left += started - p.await(started)
	}
	for range left {
		p.thawed.pass()
	}
	return p.verdict(CauseRecovered)
}

// recover thaws a filesystem whose guard was killed. Only the superblock is
// checked: the guard's mount may be of another mount namespace, or gone, and
// mounted again or open elsewhere, while the superblock, frozen, is the same.
func (m *mount) recover(gone func() bool) {
	state := m.cell.state()
	if woken := m.cell.wokenAt.Load(); woken != 0 && state == StateThawing {
		m.cell.thawAt.Store(woken) // the guard died between its FITHAW and the record of it
		m.cell.set(StateThawed, 0)
		return
	}
	if m.lost() {
		m.cell.set(StateLost, 0)
		return
	}
	fd, err := m.open(false)
	if err != nil {
		fd, err = m.elsewhere(err)
	}
	if err != nil {
		m.cell.set(state, toErrno(err))
		return
	}
	m.fd = fd
	if state == StateIntended {
		m.recoverIntended(gone)
		return
	}
	m.thawOurs()
}

// recoverIntended thaws m when it is not known whether the killed guard's
// FIFREEZE has completed. Until the guard is gone it may yet do so, and a thread
// of the guard may be held up elsewhere until m is thawed; so FITHAW is repeated
// until it has thawed, which it does once: what is frozen after that is another's.
// The state stays intended for as long, for whoever takes over from this run.
func (m *mount) recoverIntended(gone func() bool) {
	for !gone() && m.cell.state() == StateIntended { // another run may be at it, too
		if ioctl(m.fd, fiThaw) == 0 {
			m.conclude(0)
			return
		}
		pause(10)
	}
	if m.cell.state() != StateIntended {
		return
	}
	if errno := m.fithaw(); errno != unix.EINVAL {
		m.conclude(errno)
		return
	}
	m.cell.set(StateNone, 0)
}
