package front

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"github.com/quiesced/quiesced/agent"
	"github.com/quiesced/quiesced/agent/api"
	"github.com/quiesced/quiesced/agent/wire"
	"github.com/quiesced/quiesced/cpi"
)

const notePrefix = "quiesce-cpi: "

// Front answers requests for snapshots.
type Front struct {
	CPI    string // the real one's path
	Config Config

	// Dial opens a way to the daemon of a snapshot's VM. That is not there when it
	// says so with an error, or when it answers nothing.
	Dial func(context.Context, Snapshot) (Link, error)

	// Alert sends an alert to the health monitor.
	Alert func(context.Context, Alert) error

	Stdout, Stderr io.Writer
}

// Ending is what is left to do about a request.
type Ending struct {
	PassOn bool               // to the real CPI, which was not called
	Status syscall.WaitStatus // to end with, if not
}

// Snapshot takes a snapshot with the VM at rest. The end of ctx, by a signal, ends
// what was begun: before the CPI runs that is the hold, and then the CPI itself.
func (f *Front) Snapshot(ctx context.Context, document []byte, s Snapshot) Ending {
	level := f.Config.level(s)
	if s.AgentID == "" || level == agent.LevelNone {
		return Ending{PassOn: true}
	}
	h := &hold{
		request: agent.Request{ID: agent.NewID(), Level: level, Disks: []string{s.Disk}, Lease: f.Config.Lease, Wait: true},
		answer:  f.Config.NoDaemonTimeout,
		dial:    func(ctx context.Context) (Link, error) { return f.Dial(ctx, s) },
	}
	defer h.close()
	if err := h.find(ctx); err != nil {
		return f.Without(ctx, s, err)
	}
	// The CPI is started before: loading its interpreter would else be the application's
	// pause.
	stderr := newRelay(f.Stderr, true)
	first, second := s.split(document)
	c, err := f.prepare(ctx, s, first, stderr)
	if err != nil {
		return f.Refuse(cpi.Errorf(cpi.CpiError, "%s%v", notePrefix, err))
	}
	lease, err := h.begin(ctx, f.Config.QuiesceTimeout)
	if err == nil {
		if f.Config.AddMetadata {
			second = slices.Concat(s.added("quiesced_level", lease.Level, "quiesced_run", h.request.ID), second)
		}
		c.input.Send(second)
		return f.held(ctx, holding{s, h, lease, c, stderr})
	}
	c.abort()
	stderr.drop()
	stderr.close()
	if api.KindOf(err) == api.KindNotAttached {
		return Ending{PassOn: true}
	}
	return f.Without(ctx, s, err)
}

// prepare starts the CPI and has it load.
func (f *Front) prepare(ctx context.Context, s Snapshot, first []byte, stderr *relay) (*child, error) {
	pattern, err := f.Config.release(s.Disk)
	if err != nil {
		return nil, err
	}
	c, err := start(f.CPI, first, pattern, stderr)
	if err == nil {
		c.arm(ctx)
	}
	return c, err
}

// Without is a snapshot for which the VM could not be brought to rest.
func (f *Front) Without(ctx context.Context, s Snapshot, err error) Ending {
	if ctx.Err() != nil {
		return Ending{Status: syscall.WaitStatus(syscall.SIGTERM)}
	}
	text := fmt.Sprintf("cannot bring %s to rest for the snapshot of disk %q: %s", s, s.Disk, oneLine(err.Error()))
	severity := SeverityError
	if api.KindOf(err) == api.KindNotResumed {
		severity = SeverityAlert
	}
	consequence := map[Policy]string{
		Degrade: "it is taken all the same and is dirty",
		Skip:    "it is not taken",
		Fail:    "it is not taken, and the director's call fails",
	}[f.Config.Policy]
	text = fmt.Sprintf("%s; %s (policy %s)", text, consequence, f.Config.Policy)
	f.say(text)
	f.alert(ctx, Alert{ID: agent.NewID(), Severity: severity, Title: "snapshot without rest", Summary: text}, f.say)
	switch f.Config.Policy {
	case Skip:
		return f.Refuse(cpi.Errorf(cpi.NotImplemented, "%s%s", notePrefix, text))
	case Fail:
		return f.Refuse(cpi.Errorf(cpi.CloudError, "%s%s", notePrefix, text))
	}
	return Ending{PassOn: true}
}

func (s Snapshot) String() string {
	return fmt.Sprintf("%s/%s (agent %s)", s.Deployment, s.Job, s.AgentID)
}

// Refuse answers in the real CPI's place.
func (f *Front) Refuse(e *cpi.Error) Ending {
	if err := cpi.WriteError(f.Stdout, e); err != nil {
		f.say(err.Error())
	}
	return Ending{}
}

// say writes a line of our own while nothing is held.
func (f *Front) say(text string) { _, _ = fmt.Fprintln(f.Stderr, notePrefix+oneLine(text)) }

// maxTold bounds what is told in one line: an error may quote all that a CPI printed.
const maxTold = 4096

// oneLine is for errors that are several, or hold what others printed.
func oneLine(text string) string {
	if len(text) > maxTold {
		text = strings.ToValidUTF8(text[:maxTold], "") + " …"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ReplaceAll(text, "\n", "; "))
}

func (f *Front) alert(ctx context.Context, a Alert, say func(string)) {
	ctx, cancel := context.WithTimeout(ctx, f.Config.NoDaemonTimeout)
	defer cancel()
	if err := f.Alert(ctx, a); err != nil {
		say(fmt.Sprintf("cannot tell the health monitor: %v", err))
	}
}

// holding is a hold with the CPI in it.
type holding struct {
	snapshot Snapshot
	hold     *hold
	lease    wire.Lease
	cpi      *child
	stderr   *relay
}

// held has the real CPI take the snapshot in a hold.
func (f *Front) held(ctx context.Context, in holding) Ending {
	c, stderr := in.cpi, in.stderr
	stop := context.AfterFunc(ctx, func() { _ = c.process.Signal(syscall.SIGTERM) })
	defer stop()
	ctx = context.WithoutCancel(ctx)
	if in.snapshot.AgentID != Self {
		stderr.open()
	}
	in.hold.keep(c.known, c.fixed, c.left, stderr.open)
	cid, outcome := outcomeOf(in.snapshot.Disk, c.stdout())
	report, err := in.hold.end(ctx, outcome)
	stderr.open()
	<-c.ended
	_, wrote := f.Stdout.Write(c.stdout())
	f.conclude(ctx, conclusion{in, cid, report, err}, stderr.note)
	if wrote != nil {
		stderr.note(fmt.Sprintf("cannot write the answer: %v", wrote))
	}
	stderr.close()
	return Ending{Status: c.status}
}

// outcomeOf is what the daemon is told about a CPI's answer. It is recorded there, so
// nothing that the CPI printed is in it: that may hold secrets of the request.
func outcomeOf(disk string, stdout []byte) (cid string, end wire.HoldEnd) {
	answer, err := cpi.ParseResponse(stdout)
	if err == nil {
		cid, err = cpi.SnapshotCID(disk, answer.Result)
	}
	var own *cpi.Error
	var invalid *cpi.InvalidResponseError
	switch {
	case err == nil:
		return cid, wire.HoldEnd{Snapshots: map[string]string{disk: cid}}
	case errors.As(err, &own):
		return "", wire.HoldEnd{Error: fmt.Sprintf("the CPI answered %s", own.Type)}
	case errors.As(err, &invalid):
		return "", wire.HoldEnd{Error: "the CPI gave no answer: " + invalid.Reason}
	}
	return "", wire.HoldEnd{Error: err.Error()}
}
