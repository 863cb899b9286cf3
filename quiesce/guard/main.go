package guard

import (
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/quiesced/quiesced/quiesce/failpoint"
)

// Descriptors of the guard, and those of a "thaw" run.
const (
	commandsFD = 0
	answersFD  = 1
	stateFD    = 3
	binaryFD   = 4
	pidfdFD    = 5 // of a "thaw held" run
	wokenFD    = 5 // of a guard and its canary
)

// Exit statuses.
const (
	exitThawed   = 0
	exitFailed   = 1
	exitProtocol = 2
	exitState    = 3
)

// Main is the guard program. It returns the exit status.
func Main() int {
	debug.SetGCPercent(-1)
	signal.Ignore(unix.SIGPIPE, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU)
	unix.Close(binaryFD)
	if len(os.Args) == 3 && os.Args[1] == "thaw-path" {
		return thawPath(os.Args[2])
	}
	rec, cells, err := mapState(stateFD)
	if err != nil {
		answer("failed cannot use the state file: " + err.Error())
		return exitState
	}
	p, err := newProgram(rec, cells)
	if err != nil {
		answer("failed cannot create an eventfd: " + err.Error())
		return exitFailed
	}
	switch mode := strings.Join(os.Args[1:], " "); mode {
	case "canary":
		return p.runCanary()
	case "thaw", "thaw held":
		return p.thawLeft(mode == "thaw held")
	}
	return p.run()
}

// run takes the guard from its start to its end.
func (p *program) run() int {
	me, err := self()
	if err != nil {
		answer("failed cannot read the own start time: " + err.Error())
		return exitFailed
	}
	p.cells.setGuard(me)
	if !p.openMounts() {
		answer("failed")
		return exitFailed
	}
	if err := p.openTimer(); err != nil {
		answer("failed cannot create a timer: " + err.Error())
		return exitFailed
	}
	harden(len(p.mounts))
	p.catchSignals()
	p.startThreads()
	hurry()
	failpoint.Hit("guard-ready")
	answer("ready")
	p.baton.open()
	p.over.pass()
	return int(p.status.Load())
}

// openMounts opens every filesystem and checks that it is the surveyed one.
// From here on an unmount answers EBUSY. What is wrong is in the cells.
func (p *program) openMounts() bool {
	ok := true
	for _, m := range p.mounts {
		var err error
		if m.fd, err = m.open(true); err != nil {
			m.cell.set(StateFailed, toErrno(err))
			ok = false
		}
	}
	return ok
}

func (p *program) openTimer() (err error) {
	p.timer, err = unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	p.poll[0] = unix.PollFd{Fd: int32(p.timer), Events: unix.POLLIN}
	p.poll[1] = unix.PollFd{Fd: commandsFD, Events: unix.POLLIN}
	p.poll[2] = unix.PollFd{Fd: wokenFD, Events: unix.POLLIN}
	return err
}

// harden keeps memory pressure and a reader that went away from the guard.
// Protections that are not to be had are warned of.
func harden(filesystems int) {
	// The scheduler lets as many threads into blocking system calls at once as
	// it has Ps: two for each filesystem, the crew, main, and two for signals.
	runtime.GOMAXPROCS(2*filesystems + crewSize + 4)
	_ = unix.SetNonblock(answersFD, true)
	_ = unix.SetNonblock(commandsFD, true)
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		answer("warning cannot lock memory: " + err.Error())
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		answer("warning cannot be exempted from the OOM killer: " + err.Error())
	}
}

// hurry puts every thread before what else waits for a processor: the guard needs
// one for microseconds at a time, and others wait for it meanwhile.
func hurry() {
	threads, _ := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, id, -20)
		}
	}
}

// startThreads starts every thread the guard will ever need and waits until
// they run.
func (p *program) startThreads() {
	for range crewSize {
		p.thread(p.crew)
	}
	p.thread(p.signals)
	if len(p.mounts) > 1 { // else the crew does it all
		for _, m := range p.mounts {
			p.thread(func() { m.freezer(p) })
			p.thread(func() { m.thawer(p) })
		}
	}
	spareThreads(3 + len(p.mounts)/4)
}

// spareThreads leaves the scheduler a few idle threads, for it to use where it
// would start one in the window.
func spareThreads(n int) {
	var idle sync.WaitGroup
	for range n {
		idle.Go(func() { pause(1) })
	}
	idle.Wait()
}

// thread starts do on an OS thread of its own and returns when that is there.
func (p *program) thread(do func()) {
	up := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(up)
		do()
	}()
	<-up
}

// signals thaws on the first signal caught.
func (p *program) signals() {
	<-p.caught
	p.end(CauseSignal)
}

// catchSignals catches every signal that would end the guard, and can be
// caught. Before, they do end it, when nothing is frozen yet.
func (p *program) catchSignals() {
	all := []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2,
		unix.SIGALRM, unix.SIGVTALRM, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGIO, unix.SIGPWR, unix.SIGABRT}
	for s := 34; s <= 64; s++ { // the real-time signals
		all = append(all, syscall.Signal(s))
	}
	signal.Notify(p.caught, all...)
}

// answer writes one line. A pipe that is gone or full loses it.
func answer(line string) {
	_, _ = unix.Write(answersFD, []byte(line+"\n"))
}

// pause sleeps without the scheduler's timers.
func pause(milliseconds int) {
	_, _ = unix.Poll(nil, milliseconds)
}
