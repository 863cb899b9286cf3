package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Options are what a guard is started with.
type Options struct {
	RunID     string        // names the state file
	Dir       string        // of state files; default DefaultDir
	Deadline  time.Duration // from before the first FIFREEZE to the thaw
	Heartbeat time.Duration // limit between two calls of Beat; default 1 s
}

// record is what the state file of a guard started by this process says.
func (o Options) record(filesystems []Filesystem) (*Record, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	me, err := self()
	if err != nil {
		return nil, err
	}
	r := &Record{BootID: boot, RunID: o.RunID, Creator: me, Deadline: o.Deadline, Heartbeat: o.Heartbeat, Filesystems: filesystems}
	if r.Heartbeat == 0 {
		r.Heartbeat = time.Second
	}
	return r, nil
}

// Start starts a guard for filesystems and returns when their mounts are open
// and checked: from then on they cannot be unmounted. Nothing is frozen yet. On
// an error nothing is left behind. Thaw ends the guard and must be called.
func Start(ctx context.Context, b *Binary, filesystems []Filesystem, o Options) (*Guard, error) {
	g, err := start(ctx, b, filesystems, o)
	if err != nil {
		return nil, fmt.Errorf("cannot start the guard: %w", err)
	}
	return g, nil
}

func start(ctx context.Context, b *Binary, filesystems []Filesystem, o Options) (*Guard, error) {
	rec, err := o.record(filesystems)
	if err != nil {
		return nil, err
	}
	if o.Dir == "" {
		o.Dir = DefaultDir
	}
	state, err := createState(o.Dir, rec)
	if err != nil {
		return nil, err
	}
	g, err := launchWithCanary(ctx, b, state)
	if err == nil {
		g.deadline = rec.Deadline
		if err = g.await(ctx, "open", saysReady); err == nil {
			return g, nil
		}
		g.retire(0)
		g.commands.Close()
		g.canary.release()
	}
	err = errors.Join(err, state.remove())
	state.close()
	return nil, err
}

// launchWithCanary starts the guard's process and the canary's beside it. A guard
// without a canary warns: it takes FITHAW's word for who thawed.
func launchWithCanary(ctx context.Context, b *Binary, state *stateFile) (*Guard, error) {
	fd, err := newGate()
	if err != nil {
		return nil, err
	}
	woken := os.NewFile(uintptr(fd), "eventfd")
	defer woken.Close()
	theirs, err := state.reopen()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	g, err := launch(b, state, theirs, woken)
	if err != nil {
		return nil, err
	}
	if g.canary, err = startCanary(ctx, b, theirs, woken); err != nil {
		g.heard(reply{saysWarning, "no canary: " + err.Error()})
	}
	return g, nil
}

// launch starts the guard's process. theirs is the state file as its children
// have it.
func launch(b *Binary, state *stateFile, theirs, woken *os.File) (*Guard, error) {
	stdin, commands, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	answers, stdout, err := os.Pipe()
	if err != nil {
		commands.Close()
		return nil, err
	}
	defer stdout.Close()
	pidfd := -1
	cmd := b.command(theirs, nil, woken)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stdout
	cmd.SysProcAttr.PidFD = &pidfd
	if err := cmd.Start(); err != nil {
		commands.Close()
		answers.Close()
		return nil, err
	}
	g := newGuard(b, state, cmd, commands, answers, pidfd)
	if pidfd < 0 { // before Linux 5.4; its pipe's end makes the guard end
		commands.Close()
		<-g.exited
		return nil, errors.ErrUnsupported
	}
	return g, nil
}

func newGuard(b *Binary, state *stateFile, cmd *exec.Cmd, commands, answers *os.File, pidfd int) *Guard {
	g := &Guard{
		binary:   b,
		state:    state,
		commands: commands,
		pidfd:    os.NewFile(uintptr(pidfd), "pidfd"),
		process:  Process{PID: cmd.Process.Pid},
		replies:  make(chan reply, 16),
		done:     make(chan struct{}),
		exited:   make(chan struct{}),
		end:      new(sync.Once),
	}
	if st, err := readStat(g.process.PID); err == nil {
		g.process.StartTime = st.start
	}
	go g.listen(cmd, answers)
	return g
}

// listen passes answers on until the guard has ended. It keeps g, and with it
// the pipe's write end, from the collector for as long.
func (g *Guard) listen(cmd *exec.Cmd, answers *os.File) {
	readAnswers(answers, g.heard)
	answers.Close()
	_ = cmd.Wait()
	close(g.replies)
	g.end.Do(func() { close(g.done) })
	close(g.exited)
}

func (g *Guard) heard(r reply) {
	switch r.kind {
	case saysWarning, saysOther:
		g.mu.Lock()
		g.said = append(g.said, r.text)
		if len(g.said) > 20 {
			g.said = g.said[:20]
		}
		g.mu.Unlock()
		return
	case saysThawed, saysFailed:
		g.end.Do(func() { close(g.done) })
	}
	select {
	case g.replies <- r:
	default: // nobody has listened for 16 answers: the protocol has no such guard
	}
}

// Warnings returns which protections the guard goes without.
func (g *Guard) Warnings() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.said...)
}

// words returns what the guard said beside its answers: how a crash looks.
func (g *Guard) words() string { return strings.Join(g.Warnings(), "; ") }
