package guard

import (
	"golang.org/x/sys/unix"
)

// rcuExpedited is the kernel's switch for short grace periods of RCU. FIFREEZE
// waits for three of them, two while writers wait as well: on a busy machine that
// is 15 to 25 ms of the application's time, and less than one when expedited.
const rcuExpedited = "/sys/kernel/rcu_expedited"

// rcu is the switch, open, or -1 where there is none.
type rcu int

func openRCU() rcu {
	fd, err := unix.Open(rcuExpedited, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return rcu(fd)
}

// off says whether RCU is as it usually is.
func (r rcu) off() bool {
	var value [1]byte
	n, err := unix.Pread(int(r), value[:], 0)
	return err == nil && n == 1 && value[0] == '0'
}

func (r rcu) set(value byte) { _, _ = unix.Pwrite(int(r), []byte{value}, 0) }

// expedite shortens grace periods until relax. One that somebody else has
// expedited stays so.
func (p *program) expedite() {
	if p.rcu.off() {
		p.cells.setExpedited(true)
		p.rcu.set('1')
	}
}

// relax undoes expedite, also for a guard that died before it could.
func (p *program) relax() {
	if p.cells.expedited() {
		p.rcu.set('0')
		p.cells.setExpedited(false)
	}
}
